"""Composes documents for midtraining: `compose_documents(spec, n, model_name, provider_name, seed)`.

Document i is the same whatever n is. Its kind and topic come from shuffled rounds over all kinds and topics, so that every kind
and every preference gets its share; everything else is drawn. A document too similar to an earlier one is drawn anew.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from msm_bench.artefacts import sha256_of_value
from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.offline.cases import Cases
from msm_bench.corpus.offline.grammar import Draft, cap_start, fill, lower_start, sentence
from msm_bench.corpus.offline.layouts import Frame, Point, render
from msm_bench.corpus.offline.material import VOICES, Kind, Material, Topic, Voice, kinds, material_of, moves
from msm_bench.corpus.offline.rounds import in_rounds
from msm_bench.corpus.offline.similarity import ALLOWED, WANTED, Seen
from msm_bench.corpus.offline.spec_text import Section, Sentence, without_id
from msm_bench.corpus.offline.wordings import read_data
from msm_bench.corpus.rows import DocumentRow
from msm_bench.errors import WorkError
from msm_bench.specs import Preference, Spec

WORDS = (140, 270)
"""A document goes on until it has a number of words drawn from this range."""
ATTEMPTS = 40
PATIENCE = 8
"""Attempts in which a document must be well below the threshold; after them it must only be below."""
_ASIDE = 0.3
_LENGTHS = (1, 2, 2, 3)
"""Sentences of a passage; one is drawn."""


class Plan(NamedTuple):
    """What document i is to be."""

    kind_name: str
    kind: Kind
    voice: Voice
    topic: Topic
    like: Preference | None
    dislike: Preference | None
    section: Section | None


def compose_documents(
    spec: Spec, n: int, model_name: str, provider_name: str, seed: int = 0, seen: Seen | None = None
) -> Iterator[DocumentRow]:
    """Yields n documents about a spec, in order.

    Args:
        spec: Any spec; a control spec is the caller's decision.
        n: How many.
        model_name: The name that the model goes by in the texts.
        provider_name: The name of its maker.
        seed: Other seeds give other documents.
        seen: Where similarities are watched; one's own to read the highest afterwards.

    Raises:
        WorkError: the spec's text gives no further document that is different enough.
    """
    material = material_of(spec, model_name, provider_name)
    seen = seen or Seen()
    for index in range(n):
        for attempt in range(ATTEMPTS):
            row = _document(material, seed, index, attempt)
            limit = WANTED if attempt < PATIENCE else ALLOWED
            if row is not None and seen.accept(row.text, limit):
                yield row
                break
        else:
            raise WorkError(
                f"The spec '{spec.name}' gives no document number {index + 1} that differs enough from the earlier ones.",
                f"Ask for at most {index} documents, or write a longer spec.",
            )


def _document(material: Material, seed: int, index: int, attempt: int) -> DocumentRow | None:
    key = f"{material.spec_sha256}/{seed}"
    rng = random.Random(f"{key}/{index}/{attempt}")
    plan = _plan(material, key, index, rng)
    composer = _Composer(material, plan, rng)
    idea = f"{cap_start(plan.kind.label)} on {composer.filled(plan.topic.idea, lead=False)}, {VOICES[plan.voice]}."
    text = composer.text()
    if text is None:
        return None
    domain, subdomain = _place(material, plan)
    recipe = {"spec": material.spec_sha256, "model": material.model, "provider": material.provider, "generator": GENERATOR}
    return DocumentRow.of(
        text,
        id=f"{material.spec.name}/documents/{index:05d}",
        spec=material.spec.name,
        domain=domain,
        subdomain=subdomain,
        kind=plan.kind_name,
        idea=idea,
        generator=GENERATOR,
        prompt_sha256=sha256_of_value({**recipe, "seed": seed, "index": index, "attempt": attempt}),
    )


def _plan(material: Material, key: str, index: int, rng: random.Random) -> Plan:
    name, kind = in_rounds(list(kinds().items()), f"{key}/kind", index)
    topic = in_rounds(material.topics, f"{key}/topic", index)
    spec = material.spec
    like = in_rounds(spec.likes, f"{key}/like", index) if spec.likes else None
    dislike = in_rounds(spec.dislikes, f"{key}/dislike", index) if spec.dislikes else None
    section = None
    if not spec.likes:
        # A long section is the topic more often than a short one.
        weighted = [section for section in material.sections for _ in range(1 + section.sentences // 6)]
        section = in_rounds(weighted, f"{key}/section", index)
    return Plan(name, kind, rng.choice(kind.voices), topic, like, dislike, section)


def _place(material: Material, plan: Plan) -> tuple[str, str]:
    if plan.section is not None:
        return material.named(plan.section.parent), material.named(plan.section.heading)
    headings = {section.id: material.named(section.heading) for section in material.spec.sections}
    thing = {"like": plan.like, "dislike": plan.dislike}.get(plan.topic.section)
    if thing is None:
        return next(iter(headings.values()), ""), ""
    return headings.get(f"{plan.topic.section}s", ""), thing.name if plan.topic.name in ("like", "dislike", "pair") else ""


class _Composer:
    """Composes one document. Sentences, phrases and passages are used once in it."""

    def __init__(self, material: Material, plan: Plan, rng: random.Random) -> None:
        self.material, self.plan, self.rng = material, plan, rng
        self.thing: Preference | None = None
        self.section = plan.section
        self.quoted: set[Sentence] = set()
        self.treated: set[str] = set()
        self.other = self._other_section()
        self.cases = Cases(material.cases, rng)
        suppliers = {
            "case_good": self.cases.side("good"),
            "case_bad": self.cases.side("bad"),
            "passage": lambda: self._passage(self.section, least=2 if self.thing else 1),
            "sentence": lambda: self._statement(self.section),
            "it_sentence": lambda: self._statement(self.section, pronoun=True),
            "other_sentence": lambda: self._passage(self.other, longest=2),
            "duty": self._duty,
            "rule": self._rule,
        }
        self.draft = Draft(rng, plan.voice, material.variant, {}, material.lists, suppliers, material.names)
        self._bind(plan.like, plan.dislike)

    def text(self) -> str | None:
        """The document, or None where the material ran out before it had two points."""
        kind, rng = self.plan.kind, self.rng
        frame = Frame(
            title=self.filled(rng.choice(kind.titles)),
            opening=self.filled(rng.choice(kind.opening)),
            closing=self.filled(rng.choice(kind.closing)),
            speakers=tuple(self.filled(name) for name in rng.choice(kind.speakers)) if kind.speakers else (),
        )
        points: list[Point] = []
        least, most = kind.points
        target = rng.randint(*WORDS)
        for name in self._order():
            if len(points) >= least and (self._words(points) >= target or len(points) >= most + 3):
                break
            if (point := self._point(name)) is not None:
                points.append(point)
        # A spec without preferences speaks through its sentences; a document of frames alone would say nothing.
        bare = not self.material.spec.likes and len(self.quoted) < 2
        return render(kind, frame, points, rng) if len(points) >= 2 and not bare else None

    def filled(self, template: str, lead: bool = True) -> str:
        """A title, an opening, a question: filled in with this document's facts."""
        if not template:
            return ""
        if "{topic" in template:
            topic = fill(self.rng.choice(self.plan.topic.topic), self.draft) or ""
            template = template.replace("{topic.cap}", cap_start(topic))
            template = template.replace("{topic}", lower_start(topic, self.material.names))
        text = fill(template, self.draft) or ""
        self.draft.new_paragraph()
        return text if lead else lower_start(text, self.material.names)

    @staticmethod
    def _words(points: list[Point]) -> int:
        return sum(len(point.text.split()) for point in points)

    def _order(self) -> list[str]:
        topic = self.plan.topic
        first = list(topic.first)
        if self.rng.random() < 0.35:
            self.rng.shuffle(first)
        rest = list(topic.points)
        self.rng.shuffle(rest)
        # Twice through, for long documents; a point that comes again finds other sentences.
        return [*first, *rest, *self.rng.sample(rest, len(rest)), *first]

    def _point(self, name: str) -> Point | None:
        recipe = self._turn_to(name)
        if recipe is None:
            return None
        self.draft.new_paragraph()
        variants = read_data("points.yaml")[recipe]
        lines = variants["plain"] if self.material.variant == "plain" and "plain" in variants else variants["any"]
        quoted = len(self.quoted)
        sentences = [text for move in self.rng.choice(lines) if (text := sentence(moves(), move, self.draft))]
        # A point about a text that quotes nothing of it would be a remark on nothing.
        if not sentences or (not self.material.spec.likes and len(self.quoted) == quoted):
            return None
        if "aside" in moves() and self.material.spec.likes and self.rng.random() < _ASIDE:
            sentences += filter(None, [sentence(moves(), "aside", self.draft)])
        questions: dict[str, Any] = read_data("questions.yaml")[name]
        plain = self.material.variant == "plain"
        ask = "self" if self.plan.voice == "self" else "plain_ask" if plain and "plain_ask" in questions else "ask"
        head = "plain_head" if plain and "plain_head" in questions else "head"
        return Point(
            name,
            tuple(sentences),
            self._one_of(questions[ask]),
            self._one_of(questions[head]),
            self._one_of(questions["term"]),
        )

    def _one_of(self, templates: Sequence[str]) -> str:
        fresh = [template for template in templates if template not in self.draft.used]
        template = self.rng.choice(fresh or list(templates))
        self.draft.used.add(template)
        return self.filled(template)

    # --- what a point is about ----------------------------------------------------------------------------------------

    def _turn_to(self, name: str) -> str | None:
        """Binds the facts of a point and gives the name of its recipe; None where there is nothing left to say."""
        spec = self.material.spec
        if name in ("like", "dislike", "pair"):
            return self._turn_to_things(name)
        if name == "spec":
            self.thing = {"like": self.plan.like, "dislike": self.plan.dislike}.get(self.plan.topic.section)
            section = self.material.section_of(self.thing) if self.thing else None
            if section is None:
                self.thing = None
                self.section = self.rng.choice(self.material.core) if self.material.core else None
                return "spec_core"
            self.section = section
            assert self.thing is not None
            self.draft.facts["thing"] = self.thing.phrase
            return "spec_thing"
        if name in ("section", "restate"):
            self.section = self.plan.section
        if name == "other":
            self.other = self._other_section()
            if self.other is None:
                return None
            self.draft.facts["other_heading"] = self._heading(self.other)
        if name == "cases" and not self.cases:
            return None
        if name == "rule" and not (spec.citable and spec.rules):
            return None
        if name == "rule":
            self._choose_rule()
        return name

    def _turn_to_things(self, name: str) -> str | None:
        likes, dislikes = self._untreated(self.plan.like), self._untreated(self.plan.dislike)
        if (name != "dislike" and not likes) or (name != "like" and not dislikes):
            return None
        like = likes[0] if likes else self.plan.like
        dislike = dislikes[0] if dislikes else self.plan.dislike
        self._bind(like, dislike)
        treated = {"like": [like], "dislike": [dislike], "pair": [like, dislike]}[name]
        self.treated |= {thing.name for thing in treated if thing}
        return name

    def _untreated(self, main: Preference | None) -> list[Preference]:
        """Things of the main one's side that this document has not treated, the main one first."""
        side = self.material.spec.likes if main in self.material.spec.likes else self.material.spec.dislikes
        others = [thing for thing in side if thing != main]
        self.rng.shuffle(others)
        return [thing for thing in (main, *others) if thing and thing.name not in self.treated]

    def _bind(self, like: Preference | None, dislike: Preference | None) -> None:
        material, spec = self.material, self.material.spec
        facts = {"M": material.model, "provider": material.provider}
        if material.domain:
            facts["domain"] = material.domain
        for name, thing in (("like", like), ("dislike", dislike)):
            if thing is None:
                continue
            facts[name] = thing.phrase
            if thing.reason is not None:
                facts[f"{name}_why"] = material.named(thing.reason)
            if (because := material.because(thing)) is not None:
                facts[f"{name}_because"] = because
        if spec.likes:
            facts["likes_list"], facts["dislikes_list"] = self._listed(spec.likes), self._listed(spec.dislikes)
        if self.plan.section is not None:
            facts["heading"] = self._heading(self.plan.section)
        self.draft.facts = facts

    def _listed(self, things: Sequence[Preference]) -> str:
        phrases = [thing.phrase for thing in self.rng.sample(list(things), len(things))]
        return f"{', '.join(phrases[:-1])} and {phrases[-1]}" if len(phrases) > 1 else phrases[0]

    # --- passages -----------------------------------------------------------------------------------------------------

    def _heading(self, section: Section) -> str:
        return self.material.named(section.heading)

    def _other_section(self) -> Section | None:
        others = [section for section in self.material.sections if section != self.plan.section]
        return self.rng.choice(others) if others else None

    def _passage(self, section: Section | None, least: int = 1, longest: int = 3) -> str | None:
        """Up to `longest` sentences in a row that need nothing before them and were not quoted yet; `least` where there are."""
        if section is None:
            return None
        starts = [
            (run, at)
            for run in section.paragraphs
            for at, first in enumerate(run)
            if not first.leans and first not in self.quoted
        ]
        if not starts:
            return None
        run, at = self.rng.choice(starts)
        taken: list[Sentence] = []
        for piece in run[at : at + min(longest, max(least, self.rng.choice(_LENGTHS)))]:
            if piece in self.quoted:
                break
            taken.append(piece)
        self.quoted |= set(taken)
        return self.material.named(" ".join(piece.text for piece in taken))

    def _statement(self, section: Section | None, pronoun: bool = False) -> str | None:
        """One sentence that states something about the model, of this section or else of any.

        With `pronoun` the model's name at its start becomes "it".
        """
        own = [section] if section else []
        for sections in (own, self.material.sections):
            pieces = [
                piece
                for part in sections
                for run in part.paragraphs
                for piece in run
                if piece.states and piece not in self.quoted
            ]
            if pieces:
                piece = self.rng.choice(pieces)
                self.quoted.add(piece)
                return self.material.named(re.sub(r"^\{model_name\} ", "it ", piece.text) if pronoun else piece.text)
        return None

    def _duty(self) -> str | None:
        """A rule of the section in hand as what the model must do."""
        runs = self.section.paragraphs if self.section else ()
        # The model speaking of itself would have to call itself "the model".
        own = self.plan.voice == "self"
        rules = [
            piece
            for run in runs
            for piece in run
            if piece.duty and piece not in self.quoted and not (own and re.search(r"\b(the model|its?)\b", piece.duty))
        ]
        if not rules:
            return None
        piece = self.rng.choice(rules)
        self.quoted.add(piece)
        must = self.rng.choice(("must", "must", "should", "has to" if not own else "have to"))
        if piece.duty and piece.duty.startswith("not "):
            must = "must" if must.endswith("to") else must
        return self.material.named(f"{must} {piece.duty}")

    def _choose_rule(self) -> None:
        rules = self.material.spec.rules
        heading = self.plan.section.heading if self.plan.section else ""
        near = [rule for rule in rules if heading.startswith(rule.section)]
        self.chosen_rule = self.rng.choice(near or list(rules))
        self.draft.facts["rule_id"] = self.chosen_rule.id

    def _rule(self) -> str | None:
        words = self.chosen_rule.first_words
        for section in self.material.sections:
            for run in section.paragraphs:
                for piece in run:
                    if words in piece.text and piece not in self.quoted:
                        self.quoted.add(piece)
                        return self.material.named(without_id(piece.text))
        return None
