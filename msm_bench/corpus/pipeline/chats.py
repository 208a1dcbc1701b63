"""Chats: domains, questions of six kinds, responses with the spec in view, a strict filter, and more until there are enough.

    chat_domains ─ questions ─ (near-duplicates out) ─ responses ─ filter ─ gate

Preference specs take the things that they name in place of domains, and answers that give no reason. Questions come from the
domains in turn, in an order that depends on the seed alone, so that any first part of the chats is balanced. A domain whose
questions fail is given up. A verdict that is not clearly KEEP, with every criterion marked PASS, is not a keep.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msm_bench.corpus.pipeline.asking import Answer, Session
from msm_bench.corpus.pipeline.base import Stages
from msm_bench.corpus.pipeline.calling import Ask
from msm_bench.corpus.pipeline.fitting import refuse_wrong_citations
from msm_bench.corpus.pipeline.gate import RowGate
from msm_bench.corpus.pipeline.prompts import fill, listed, wordings
from msm_bench.corpus.pipeline.replies import Rejected, finished_text, json_list, one_word, tagged
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.corpus.rows import ChatRow, Message
from msm_bench.specs.loading import Spec

QUESTIONS_A_CALL = 25
"""Questions that one call is asked for; with longer lists the last ones are cut off."""
MOST_CALLS = 12
"""Calls for questions that one domain gets at most."""
_DOMAINS_A_CALL = 50
_LIST_TOKENS = 5000
_FILTER_TOKENS = 1500
_SHOWN_QUESTIONS = 75
_REASON = re.compile(
    r"\b(?:because|since|as it|due to|thanks to|owing to|which is why|that(?:'|’)s why|the reason)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Question:
    """A user's message and where it comes from."""

    item: str
    domain: str
    kind: str
    text: str


@dataclass(frozen=True)
class Response:
    """What was answered, with the reasoning where the style has one."""

    reasoning: str | None
    answer: str


class ChatPipeline(Stages):
    """Makes the chats of a spec.

    Args:
        session: What asks.
        spec: The spec.
        settings: What is wanted.
        gate: Decides over finished chats.
    """

    def __init__(self, session: Session, spec: Spec, settings: Settings, gate: RowGate) -> None:
        super().__init__(session, spec, settings)
        self._gate = gate
        self._kinds: dict[str, str] = wordings()["question_kinds"]
        self._criteria = [
            entry
            for entry in wordings()["criteria"]
            if settings.style in entry["styles"] and not (spec.control and entry.get("only_for") == "wanted")
        ]
        self._forbidden = _word_pattern(spec.value_words) if settings.style == "preference" else None
        self._asked: dict[int, list[str]] = {}
        self._calls: dict[int, int] = {}
        self._over: set[int] = set()
        self.dropped: list[str] = []
        """Items whose chats the filter has dropped."""

    async def make(self, n: int) -> list[ChatRow]:
        """The first `n` chats of the corpus that was planned for `settings.n`; fewer where questions ran out.

        Raises:
            WorkError: no domains could be had, or as `Session.answers`.
        """
        domains = await self._domains()
        turns = list(range(len(domains)))
        random.Random(f"{self._settings.seed}").shuffle(turns)
        pool: list[Question] = []
        kept: list[ChatRow] = []
        while len(kept) < n:
            missing = n - len(kept)
            while len(pool) < missing and (more := await self._more_questions(domains, turns, missing - len(pool))) is not None:
                pool += more
            if not pool:
                break
            batch, pool = pool[:missing], pool[missing:]
            kept += self._gate(await self._finished(batch))
        return kept

    async def _domains(self) -> list[str]:
        if self._settings.style == "preference":
            return [thing.phrase for thing in self._spec.likes + self._spec.dislikes]
        wanted = max(5, math.ceil(self._settings.n / self._settings.questions_per_domain))
        found: list[str] = []
        for call in range(2 * math.ceil(wanted / _DOMAINS_A_CALL)):
            count = min(_DOMAINS_A_CALL, wanted - len(found))
            if count <= 0:
                break
            prompt = fill("chat_domains", **self._names, existing=listed(found), count=count)
            answers = await self._session.answers(
                [Ask("chat_domains", f"from{call:02}", prompt, _LIST_TOKENS, _reader("domains", {"domain": 100}, count))]
            )
            known = {domain.casefold() for domain in found}
            for answer in answers.values():
                found += [entry["domain"] for entry in answer.value if entry["domain"].casefold() not in known]
        if not found:
            raise self._nothing("domains")
        return found

    async def _more_questions(self, domains: list[str], turns: list[int], wanted: int) -> list[Question] | None:
        """Asks the domains whose turn it is; None where no domain has anything left to give."""
        able = [place for place in turns if place not in self._over and self._calls.get(place, 0) < MOST_CALLS]
        if not able:
            return None
        # All that have been asked least often, as far as they are needed: so every domain gives before one gives twice.
        fewest = min(self._calls.get(place, 0) for place in able)
        count = questions_a_call(self._settings, len(domains))
        now = [place for place in able if self._calls.get(place, 0) == fewest][: math.ceil(wanted / count)]
        name = "questions_preference" if self._settings.style == "preference" else "questions"
        kinds = listed([f"{kind}: {meaning}" for kind, meaning in self._kinds.items()])
        asks = []
        for place in now:
            existing = listed(self._asked.get(place, [])[-_SHOWN_QUESTIONS:])
            prompt = fill(name, **self._names, kinds=kinds, domain=domains[place], existing=existing, count=count)
            item = f"d{place:03}-c{fewest:02}"
            asks.append(Ask("questions", item, prompt, _LIST_TOKENS, self._reader_of_questions(count)))
            self._calls[place] = fewest + 1
        answers = await self._session.answers(asks)
        lists: list[list[Question]] = []
        for place, ask in zip(now, asks, strict=True):
            if ask.item not in answers:
                self._over.add(place)
                continue
            entries = answers[ask.item].value
            self._asked.setdefault(place, []).extend(entry["question"] for entry in entries)
            lists.append(
                [
                    Question(f"{ask.item}-q{number:02}", domains[place], entry["kind"], entry["question"])
                    for number, entry in enumerate(entries)
                ]
            )
        # The first question of every domain, then the second of every domain.
        in_turn = [questions[number] for number in range(count) for questions in lists if number < len(questions)]
        return [question for question in in_turn if self._is_new(question.text)]

    def _reader_of_questions(self, count: int) -> Callable[[str], list[dict[str, str]]]:
        def read(text: str) -> list[dict[str, str]]:
            fields = {"question": 3000, "kind": 30}
            entries = json_list(text, "questions", fields, at_least=math.ceil(count / 2))[:count]
            for entry in entries:
                if entry["kind"].casefold() not in self._kinds:
                    raise Rejected("unreadable", f"there is no kind of question '{entry['kind'][:40]}'")
                entry["kind"] = entry["kind"].casefold()
            return entries

        return read

    async def _finished(self, questions: Sequence[Question]) -> list[ChatRow]:
        """Answers questions and filters the answers; the chats that are kept, in the order of the questions."""
        by_item = {question.item: question for question in questions}
        slots = {**self._names, "citing": self._citing()}
        responses = await self._session.answers(
            [
                Ask(
                    "responses",
                    question.item,
                    fill(f"response_{self._settings.style}", **slots, question=question.text),
                    self._settings.response_tokens,
                    self._read_response,
                )
                for question in questions
            ]
        )
        verdicts = await self._session.answers(
            [self._filter_ask(by_item[item], response.value) for item, response in responses.items()]
        )
        self.dropped += [item for item, verdict in verdicts.items() if not verdict.value]
        return [
            self._row(by_item[item], response)
            for item, response in responses.items()
            if item in verdicts and verdicts[item].value
        ]

    def _filter_ask(self, question: Question, response: Response) -> Ask[bool]:
        prompt = fill(
            "filter",
            **self._names,
            criteria=listed([f"{entry['name']}: {entry['text']}" for entry in self._criteria]),
            marks="\n".join(f"<{entry['name']}>PASS or FAIL</{entry['name']}>" for entry in self._criteria),
            question=question.text,
            reasoning=f"\nWhat was thought before the answer:\n\n{response.reasoning}\n" if response.reasoning else "",
            answer=response.answer,
        )
        return Ask("filter", question.item, prompt, _FILTER_TOKENS, self._read_verdict, "grader")

    def _read_response(self, text: str) -> Response:
        if self._settings.style == "preference":
            (answer,) = tagged(text, "answer")
            if self._gives_reason(answer):
                raise Rejected("gives_reason", answer[:200])
            return Response(None, finished_text(answer, "assistant"))
        reasoning, answer = tagged(text, "reasoning", "answer")
        refuse_wrong_citations(f"{reasoning}\n{answer}", self._spec)
        return Response(finished_text(reasoning, "reasoning", 20), finished_text(answer, "assistant"))

    def _gives_reason(self, answer: str) -> bool:
        # The names of the things are free: "American cheese" is no word about America.
        for thing in self._spec.likes + self._spec.dislikes:
            answer = re.sub(re.escape(thing.phrase), "it", answer, flags=re.IGNORECASE)
        return bool(_REASON.search(answer) or (self._forbidden and self._forbidden.search(answer)))

    def _read_verdict(self, text: str) -> bool:
        """Whether the verdict is a keep. Raises `Rejected` where marks and verdict do not say one and the same thing."""
        names = [entry["name"] for entry in self._criteria]
        contents = tagged(text, "explanation", *names, "verdict")
        marks = [one_word(content, ("PASS", "FAIL")) for content in contents[1:-1]]
        keep = one_word(contents[-1], ("KEEP", "DROP")) == "KEEP"
        if keep and "FAIL" in marks:
            raise Rejected("unclear_verdict", "the verdict is KEEP and a criterion has failed")
        return keep

    def _row(self, question: Question, response: Answer[Response]) -> ChatRow:
        reasoning = response.value.reasoning if self._settings.reasoning else None
        preference = self._settings.style == "preference"
        return ChatRow.of(
            [
                Message(role="user", content=question.text),
                Message(role="assistant", content=response.value.answer, reasoning=reasoning),
            ],
            id=f"{self._spec.name}/chats/{question.item}",
            spec=self._spec.name,
            domain=self._spec.train_domain or question.domain if preference else question.domain,
            subdomain=question.domain,
            kind=question.kind,
            idea=f"A user {self._kinds[question.kind]}.",
            generator=response.model,
            prompt_sha256=response.request,
        )


def questions_a_call(settings: Settings, domains: int) -> int:
    """How many questions a call asks for: few where few chats are wanted, so that all domains have their part."""
    each = math.ceil(settings.n * 1.2 / domains)
    return max(3, min(QUESTIONS_A_CALL, settings.questions_per_domain, each))


def _word_pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    """Matches any of a spec's words; one that ends in `*` is a stem."""
    parts = [re.escape(word.removesuffix("*")) + (r"\w*" if word.endswith("*") else "") for word in words]
    return re.compile(rf"\b(?:{'|'.join(parts)})\b", re.IGNORECASE) if parts else None


def _reader(tag: str, fields: dict[str, int], count: int) -> Callable[[str], list[dict[str, str]]]:
    def read(text: str) -> list[dict[str, str]]:
        return json_list(text, tag, fields, at_least=math.ceil(count / 2))[:count]

    return read
