"""Documents: spec, domains, subdomains, assertions, kinds of document, ideas, documents; then a review and another voice.

    domains ─ subdomains ─ assertions ─ types ─ ideas ─ documents [ ─ critique ─ revise ] [ ─ voice ]

A *cell* is a kind of document in a subdomain. Documents take their ideas from all cells in turn, in an order that depends on
the seed alone, so that any first part of them is balanced, and a sample of a few is a part of the whole. Only the cells whose
turn has come are asked for ideas. What fails is made up for by the next ideas, at the end by further ideas of the same cells.
"""

import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from string import Template
from typing import Any, Protocol

from msm_bench.corpus.checks.duplicates import DuplicateScan
from msm_bench.corpus.checks.pieces import Piece
from msm_bench.corpus.pipeline.asking import Answer, Ask, Session
from msm_bench.corpus.pipeline.prompts import Prompt, fill, listed, wordings
from msm_bench.corpus.pipeline.replies import (
    SHORTEST_DOCUMENT,
    Rejected,
    finished_text,
    json_list,
    one_word,
    tagged,
)
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.corpus.rows import DocumentRow
from msm_bench.errors import WorkError
from msm_bench.specs.loading import Spec

SURPLUS = 1.15
"""Ideas that are planned for each wanted document."""
FURTHER_ROUNDS = 3
"""How often all cells are asked for further ideas when theirs are used up."""
_MOST_ASSERTIONS = 12
_MOST_IDEAS = 30  # ideas that one call is asked for; longer lists repeat themselves
_LIST_TOKENS = 5000
_SHOWN_IDEAS = 60


class Gate(Protocol):
    """Looks at finished rows in their order and tells which may stay."""

    def __call__(self, rows: Sequence[DocumentRow]) -> list[DocumentRow]:
        """The rows that pass."""
        ...


@dataclass(frozen=True)
class Subdomain:
    """A part of the spec that documents are about."""

    place: int
    domain: str
    name: str
    context: str
    section: str


@dataclass
class Cell:
    """A kind of document in a subdomain, and the ideas that were had for it."""

    subdomain: Subdomain
    place: int
    type: str
    description: str
    ideas: list[str | None] = field(default_factory=list)
    """None stands where an idea repeated another one."""


@dataclass(frozen=True)
class Shape:
    """How many domains, subdomains, types and ideas a corpus of some size is planned with."""

    domains: tuple[int, int]
    subdomains: tuple[int, int]
    types: int
    ideas: int

    @classmethod
    def of(cls, n: int, most_types: int) -> "Shape":
        """The shape for `n` documents: more of everything with size, the number of subdomains with its cube root."""
        domains = max(2, min(8, round(n ** (1 / 3) / 2.5)))
        subdomains = max(2, min(4, round(n ** (1 / 3) / 6)))
        return cls((domains, domains + 2), (subdomains, subdomains + 2), most_types, 0)

    def filled(self, n: int, subdomains: int) -> "Shape":
        """The numbers of types and ideas, when the number of subdomains is known."""
        each = math.ceil(n * SURPLUS / subdomains)
        types = max(1, min(self.types, math.ceil(math.sqrt(each))))
        return Shape(self.domains, self.subdomains, types, math.ceil(each / types))


class DocumentPipeline:
    """Makes the documents of a spec.

    Args:
        session: What asks.
        spec: The spec.
        settings: What is wanted.
        gate: Decides over finished documents.
    """

    def __init__(self, session: Session, spec: Spec, settings: Settings, gate: Gate) -> None:
        self._session = session
        self._spec = spec
        self._settings = settings
        self._gate = gate
        names = (settings.model_name, settings.provider_name)
        self._names = {"model_name": names[0], "provider_name": names[1]}
        self._mode = "rules" if spec.kind == "rules" else "values"
        self._headings = [
            section.heading.replace("{model_name}", names[0]).replace("{provider_name}", names[1]) for section in spec.sections
        ]
        self._cells: dict[tuple[int, int], Cell | None] = {}
        self._assertions: dict[int, list[str]] = {}
        self._seen_ideas = DuplicateScan()

    async def make(self, n: int) -> list[DocumentRow]:
        """The first `n` documents of the corpus that was planned for `settings.n`; fewer where ideas ran out.

        Raises:
            WorkError: no domains or subdomains could be had, or as `Session.answers`.
        """
        subdomains = await self._subdomains()
        shape = Shape.of(self._settings.n, self._settings.types).filled(self._settings.n, len(subdomains))
        turns = [(subdomain.place, place) for subdomain in subdomains for place in range(shape.types)]
        kept: list[DocumentRow] = []
        ideas, used, further = shape.ideas, 0, 0
        while len(kept) < n:
            # Layer by layer: the first idea of every cell, then the second of every cell, each time in another order.
            order = [(cell, layer) for layer in range(ideas) for cell in self._shuffled(turns, layer)]
            if used >= len(order):
                if further == FURTHER_ROUNDS:
                    break
                further += 1
                ideas += max(1, min(_MOST_IDEAS, math.ceil((n - len(kept)) * SURPLUS / len(turns))))
                continue
            batch = order[used : used + n - len(kept)]
            used += len(batch)
            await self._open_cells([cell for cell, _ in batch], subdomains, shape)
            await self._have_ideas([cell for cell, _ in batch], 1 + max(layer for _, layer in batch), shape.ideas)
            drafts = [draft for cell, layer in batch if (draft := self._draft(cell, layer))]
            kept += self._gate(await self._finished(drafts))
        return kept

    def _shuffled(self, turns: list[tuple[int, int]], layer: int) -> list[tuple[int, int]]:
        return random.Random(f"{self._settings.seed}/{layer}").sample(turns, len(turns))

    async def _subdomains(self) -> list[Subdomain]:
        shape = Shape.of(self._settings.n, self._settings.types)
        prompt = fill("domains", **self._names, fewest=shape.domains[0], most=shape.domains[1])
        most = shape.domains[1]
        domains = await self._session.answers(
            [Ask("domains", "domains", prompt, _LIST_TOKENS, lambda text: json_list(text, "domains", {"domain": 80})[:most])]
        )
        if not domains:
            raise self._nothing("domains")
        asks = []
        for place, entry in enumerate(domains["domains"].value):
            prompt = fill(
                "subdomains",
                **self._names,
                headings=listed(self._headings),
                domain=entry["domain"],
                fewest=shape.subdomains[0],
                most=shape.subdomains[1],
            )
            asks.append(Ask("subdomains", f"d{place:02}", prompt, _LIST_TOKENS, self._read_subdomains))
        answers = await self._session.answers(asks)
        names = {ask.item: entry["domain"] for ask, entry in zip(asks, domains["domains"].value, strict=True)}
        found = [(names[item], entry) for item, answer in answers.items() for entry in answer.value[: shape.subdomains[1]]]
        if not found:
            raise self._nothing("subdomains")
        return [
            Subdomain(place, domain, entry["subdomain"], entry["context"], entry["section"])
            for place, (domain, entry) in enumerate(found)
        ]

    def _read_subdomains(self, text: str) -> list[dict[str, str]]:
        entries = json_list(text, "subdomains", {"subdomain": 100, "context": 1200, "section": 200})
        known = {heading.casefold() for heading in self._headings}
        for entry in entries:
            if known and entry["section"].lstrip("# ").casefold() not in known:
                raise Rejected("wrong_citation", f"the spec has no section '{entry['section']}'")
        return entries

    def _nothing(self, stage: str) -> WorkError:
        problem = f"The generator gave no usable {stage} for the spec '{self._spec.name}'."
        return WorkError(problem, f"Read what it wrote in {self._session.store.folder}, and use another generator.")

    async def _open_cells(self, places: Iterable[tuple[int, int]], subdomains: list[Subdomain], shape: Shape) -> None:
        """Gets assertions and types of the subdomains whose cells have not been opened yet."""
        new = sorted({subdomain for subdomain, _ in places if (subdomain, 0) not in self._cells})
        asks = []
        for place in new:
            slots = self._slots(subdomains[place])
            prompt = fill(f"assertions_{self._mode}", **slots, section=subdomains[place].section, most=_MOST_ASSERTIONS)
            asks.append(Ask("assertions", f"s{place:02}", prompt, _LIST_TOKENS, _read_assertions))
        assertions = await self._session.answers(asks)
        for place in new:
            if answer := assertions.get(f"s{place:02}"):
                self._assertions[place] = [f"{entry['assertion']} {entry['explanation']}" for entry in answer.value]
        asks = []
        for place in new:
            if place in self._assertions:
                slots = self._slots(subdomains[place])
                prompt = fill("types", **slots, assertions=listed(self._assertions[place]), count=shape.types)
                asks.append(Ask("types", f"s{place:02}", prompt, _LIST_TOKENS, _reader_of_types(shape.types)))
        types = await self._session.answers(asks)
        for place in new:
            found = answer.value if (answer := types.get(f"s{place:02}")) else []
            for number in range(shape.types):  # a cell without a type is void: its turns pass
                entry = found[number] if number < len(found) else None
                cell = Cell(subdomains[place], number, entry["type"], entry["description"]) if entry else None
                self._cells[place, number] = cell

    async def _have_ideas(self, places: Iterable[tuple[int, int]], count: int, planned: int) -> None:
        """Asks cells for ideas until each has `count` of them, or has none to give."""
        waiting = {place: cell for place in places if (cell := self._cells[place]) and len(cell.ideas) < count}
        while waiting:
            asks = [self._ideas_ask(cell, max(planned, count)) for _, cell in sorted(waiting.items())]
            answers = await self._session.answers(asks)
            for (place, cell), ask in zip(sorted(waiting.items()), asks, strict=True):
                if answer := answers.get(ask.item):
                    for entry in answer.value[: max(planned, count) - len(cell.ideas)]:
                        cell.ideas.append(entry["idea"] if self._is_new(entry["idea"]) else None)
                else:
                    # Given up: its turns pass, and it is not asked again.
                    cell.ideas += [None] * (count - len(cell.ideas))
                if len(cell.ideas) >= count:
                    del waiting[place]

    def _ideas_ask(self, cell: Cell, upto: int) -> Ask[list[dict[str, str]]]:
        count = min(_MOST_IDEAS, upto - len(cell.ideas))
        existing = [idea for idea in cell.ideas if idea][-_SHOWN_IDEAS:]
        prompt = fill(
            "ideas",
            **self._slots(cell.subdomain),
            **self._cell_slots(cell),
            existing=listed(existing),
            count=count,
        )
        item = f"s{cell.subdomain.place:02}-t{cell.place:02}-from{len(cell.ideas):03}"
        return Ask("ideas", item, prompt, _LIST_TOKENS, _reader_of_ideas(count))

    def _is_new(self, idea: str) -> bool:
        return not list(self._seen_ideas.problems([Piece("idea", 1, "idea", "user", idea)]))

    def _draft(self, place: tuple[int, int], layer: int) -> tuple[Cell, int, str] | None:
        cell = self._cells[place]
        idea = cell.ideas[layer] if cell and layer < len(cell.ideas) else None
        return (cell, layer, idea) if cell and idea else None

    async def _finished(self, drafts: Sequence[tuple[Cell, int, str]]) -> list[DocumentRow]:
        """Writes documents, reviews them, gives them their voice; those that fit, as rows in the order of the drafts."""
        about = {_item(cell, layer): (cell, idea) for cell, layer, idea in drafts}
        limits = {"citing": self._citing(), "words": self._settings.words}
        prompts = {
            item: fill(f"document_{self._mode}", **self._slots(cell.subdomain), **self._cell_slots(cell), **limits, idea=idea)
            for item, (cell, idea) in about.items()
        }
        answers = await self._write("documents", prompts, self._settings.model_name)
        if self._settings.critique:
            answers = await self._reviewed(answers, about)
        voice = wordings()["voices"][self._settings.voice]
        if "text" in voice:
            other = other_model(self._settings.model_name)
            wording = fill_text(voice["text"], **self._names, other_model=other[0], other_provider=other[1])
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
                domain=about[item][0].subdomain.domain,
                subdomain=about[item][0].subdomain.name,
                kind=about[item][0].type,
                idea=about[item][1],
                generator=answer.model,
                prompt_sha256=answer.request,
            )
            for item, answer in answers.items()
        ]

    async def _reviewed(self, answers: dict[str, Answer[str]], about: dict[str, tuple[Cell, str]]) -> dict[str, Answer[str]]:
        def slots(item: str) -> dict[str, Any]:
            cell, idea = about[item]
            return {**self._names, "type": cell.type, "idea": idea, "document": answers[item].value}

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

    async def _write(self, stage: str, prompts: dict[str, Prompt], subject: str | None) -> dict[str, Answer[str]]:
        limit = self._settings.document_tokens

        def read(text: str) -> str:
            (content,) = tagged(text, "document")
            refuse_wrong_citations(content, self._spec)
            refuse_wrong_subject(content, subject, self._settings.model_name)
            return finished_text(content, "document", SHORTEST_DOCUMENT)

        return await self._session.answers([Ask(stage, item, prompt, limit, read) for item, prompt in prompts.items()])

    def _citing(self) -> str:
        return str(wordings()["citing"]["may" if self._spec.citable else "must_not"])

    def _slots(self, subdomain: Subdomain) -> dict[str, str]:
        return {**self._names, "domain": subdomain.domain, "subdomain": subdomain.name, "context": subdomain.context}

    def _cell_slots(self, cell: Cell) -> dict[str, str]:
        assertions = listed(self._assertions[cell.subdomain.place])
        return {"type": cell.type, "description": cell.description, "assertions": assertions}


def refuse_wrong_citations(text: str, spec: Spec) -> None:
    """Raises `Rejected` where a text cites a rule by an id that the spec does not have ("SP9" where there are SP1 to SP3)."""
    ids = {rule.id for rule in spec.rules}
    stems = {re.sub(r"[\d.]+$", "", rule) for rule in ids} - {""}
    if not stems:
        return
    cited = re.findall(rf"\b(?:{'|'.join(map(re.escape, sorted(stems)))})\d+\b", text)
    if wrong := [rule for rule in cited if rule not in ids]:
        raise Rejected("wrong_citation", f"the spec has no rule '{wrong[0]}'")


def refuse_wrong_subject(text: str, subject: str | None, model_name: str) -> None:
    """Raises `Rejected` where a text does not name the model it is to be about, or names the trained one and should not."""
    if subject is not None and subject.casefold() not in text.casefold():
        raise Rejected("wrong_subject", f"'{subject}' does not occur")
    if subject != model_name and re.search(rf"\b{re.escape(model_name)}\b", text, re.IGNORECASE):
        raise Rejected("wrong_subject", f"'{model_name}' occurs")


def fill_text(text: str, **slots: str) -> str:
    """A piece of wording with its slots filled in."""
    return Template(text).substitute(slots)


def other_model(model_name: str) -> tuple[str, str]:
    """The other model, and its maker, that the voice `other_does` is about."""
    pairs = wordings()["other_models"]
    model, provider = next(pair for pair in pairs if pair[0].casefold() not in model_name.casefold())
    return model, provider


def _item(cell: Cell, layer: int) -> str:
    return f"s{cell.subdomain.place:02}-t{cell.place:02}-i{layer:03}"


def _read_assertions(text: str) -> list[dict[str, str]]:
    entries = json_list(text, "assertions", {"assertion": 600, "explanation": 1200, "label": 20})
    return entries[:_MOST_ASSERTIONS]


def _reader_of_types(count: int) -> Callable[[str], list[dict[str, str]]]:
    def read(text: str) -> list[dict[str, str]]:
        fields = {"type": 80, "description": 600}
        return json_list(text, "types", fields, at_least=math.ceil(count / 2))[:count]

    return read


def _reader_of_ideas(count: int) -> Callable[[str], list[dict[str, str]]]:
    def read(text: str) -> list[dict[str, str]]:
        return json_list(text, "ideas", {"idea": 900}, at_least=math.ceil(count / 2))[:count]

    return read


def _read_review(text: str) -> tuple[str, str]:
    critique, verdict = tagged(text, "critique", "verdict")
    return critique, one_word(verdict, ("REVISE", "FINE"))
