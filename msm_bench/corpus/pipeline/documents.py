"""Documents: a plan, documents, then a review and another voice.

    domains ─ subdomains ─ assertions ─ types ─ ideas ─ documents [ ─ critique ─ revise ] [ ─ voice ]

The plan (all before the documents) is the generator's, see `planning.py`, or for small generators the spec's own text, see
`spec_plan.py`. What fails is made up for by the next drafts of the plan.
"""

from collections.abc import Sequence
from dataclasses import replace
from string import Template

from msm_bench.corpus.pipeline.asking import Answer, Session
from msm_bench.corpus.pipeline.base import Stages
from msm_bench.corpus.pipeline.calling import Ask
from msm_bench.corpus.pipeline.fitting import other_model, refuse_off_topic, refuse_wrong_citations, refuse_wrong_subject
from msm_bench.corpus.pipeline.gate import RowGate
from msm_bench.corpus.pipeline.planning import Draft, ModelPlan, Plan
from msm_bench.corpus.pipeline.prompts import Prompt, fill, listed, wordings
from msm_bench.corpus.pipeline.replies import SHORTEST_DOCUMENT, finished_text, one_word, tagged, untagged
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.corpus.pipeline.spec_plan import SpecPlan, simple
from msm_bench.corpus.rows import DocumentRow
from msm_bench.specs.loading import Spec


class DocumentPipeline(Stages):
    """Makes the documents of a spec.

    Args:
        session: What asks.
        spec: The spec.
        settings: What is wanted.
        gate: Decides over finished documents.
    """

    def __init__(self, session: Session, spec: Spec, settings: Settings, gate: RowGate) -> None:
        super().__init__(session, spec, settings)
        self._gate = gate
        self._plan: Plan = SpecPlan(spec, settings) if settings.simple else ModelPlan(session, spec, settings)
        form = "simple" if settings.simple else "rules" if spec.kind == "rules" else "values"
        self._prompt = f"document_{form}"

    async def make(self, n: int) -> list[DocumentRow]:
        """The first `n` documents of the corpus that was planned for `settings.n`; fewer where the plan ran out.

        Raises:
            WorkError: no domains or subdomains could be had, or as `Session.answers`.
        """
        kept: list[DocumentRow] = []
        while len(kept) < n and (drafts := await self._plan.next(n - len(kept))) is not None:
            kept += self._gate(await self._finished(drafts))
        return kept

    async def _finished(self, drafts: Sequence[Draft]) -> list[DocumentRow]:
        """Writes documents, reviews them, gives them their voice; those that fit, as rows in the order of the drafts."""
        about = {draft.item: draft for draft in drafts}
        prompts = {item: self._document_prompt(draft) for item, draft in about.items()}
        passages = {item: draft.assertions[0] for item, draft in about.items()} if self._settings.simple else None
        answers = await self._write("documents", prompts, self._settings.model_name, passages)
        if self._settings.critique:
            answers = await self._reviewed(answers, about)
        voice = wordings()["voices"][self._settings.voice]
        if "text" in voice:
            other = other_model(self._settings.model_name)
            wording = Template(voice["text"]).substitute(**self._names, other_model=other[0], other_provider=other[1])
            rewritten = {
                item: fill("voice", **self._names, voice=wording, document=answer.value) for item, answer in answers.items()
            }
            subject = {"model": self._settings.model_name, "other": other[0], "nobody": None}[voice["about"]]
            answers = await self._write("voice", rewritten, subject)
        return [
            DocumentRow.of(
                answer.value,
                id=f"{self._spec.name}/documents/{item}",
                spec=self._spec.name,
                domain=about[item].domain,
                subdomain=about[item].subdomain,
                kind=about[item].type,
                idea=about[item].idea,
                generator=answer.model,
                prompt_sha256=answer.request,
            )
            for item, answer in answers.items()
        ]

    def _document_prompt(self, draft: Draft) -> Prompt:
        prompt = fill(
            self._prompt,
            **self._names,
            domain=draft.domain,
            subdomain=draft.subdomain,
            type=draft.type,
            description=draft.description,
            # A passage stands as it is, assertions as a list.
            assertions=draft.assertions[0] if self._settings.simple else listed(list(draft.assertions)),
            idea=draft.idea,
            citing=self._citing(),
            words=self._settings.words,
        )
        return replace(prompt, bare=self._settings.simple)

    async def _reviewed(self, answers: dict[str, Answer[str]], about: dict[str, Draft]) -> dict[str, Answer[str]]:
        def slots(item: str) -> dict[str, str]:
            return {**self._names, "type": about[item].type, "idea": about[item].idea, "document": answers[item].value}

        reviews = await self._session.answers(
            [Ask("critique", item, fill("critique", **slots(item)), 2000, _read_review, "grader") for item in answers]
        )
        to_revise = {
            item: fill("revise", **slots(item), critique=review.value[0])
            for item, review in reviews.items()
            if review.value[1] == "REVISE"
        }
        revised = await self._write("revise", to_revise, self._settings.model_name)
        # Without a readable review a document is not known to be right, and is not kept.
        return {
            item: revised[item] if item in revised else answers[item]
            for item in answers
            if item in reviews and (item not in to_revise or item in revised)
        }

    async def _write(
        self, stage: str, prompts: dict[str, Prompt], subject: str | None, passages: dict[str, str] | None = None
    ) -> dict[str, Answer[str]]:
        limit = self._settings.document_tokens

        def read(text: str, passage: str | None) -> str:
            content = tagged(text, "document")[0] if passage is None else untagged(text)
            refuse_wrong_citations(content, self._spec)
            refuse_wrong_subject(content, subject, self._settings.model_name)
            if passage is not None:
                refuse_off_topic(content, passage, self._settings.model_name, simple()["shared_words"])
            return finished_text(content, "document", SHORTEST_DOCUMENT)

        def ask(item: str, prompt: Prompt) -> Ask[str]:
            passage = passages[item] if passages is not None else None
            return Ask(stage, item, prompt, limit, lambda text: read(text, passage))

        return await self._session.answers([ask(item, prompt) for item, prompt in prompts.items()])


def _read_review(text: str) -> tuple[str, str]:
    critique, verdict = tagged(text, "critique", "verdict")
    return critique, one_word(verdict, ("REVISE", "FINE"))
