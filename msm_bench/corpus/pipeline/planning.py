"""Plans documents with the generator: domains, subdomains, assertions, kinds of document, ideas.

A *cell* is a kind of document in a subdomain. Documents take their ideas from all cells in turn, in an order that depends on
the seed alone, so that any first part of them is balanced, and a sample of a few is a part of the whole. Only the cells whose
turn has come are asked for ideas. What fails is made up for by the next ideas, at the end by further ideas of the same cells.
"""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from msm_bench.corpus.pipeline.asking import Session
from msm_bench.corpus.pipeline.base import Stages
from msm_bench.corpus.pipeline.calling import Ask
from msm_bench.corpus.pipeline.prompts import fill, listed
from msm_bench.corpus.pipeline.replies import Rejected, json_list
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.specs.loading import Spec

SURPLUS = 1.15
"""Ideas that are planned for each wanted document."""
FURTHER_ROUNDS = 3
"""How often all cells are asked for further ideas when theirs are used up."""
MOST_IDEAS = 30
"""Ideas that one call is asked for; longer lists repeat themselves."""
_MOST_ASSERTIONS = 12
_LIST_TOKENS = 5000
_SHOWN_IDEAS = 60


@dataclass(frozen=True)
class Draft:
    """A document that is to be written."""

    item: str
    domain: str
    subdomain: str
    type: str
    description: str
    """Of the type."""
    assertions: tuple[str, ...]
    """What it may convey; for a plan from the spec alone, the passage that it conveys."""
    idea: str


class Plan(Protocol):
    """Says which documents are to be written, in an order that depends on the seed alone."""

    async def next(self, count: int) -> list[Draft] | None:
        """The drafts of the next `count` turns, which may be fewer; None where there are none any more."""
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


class ModelPlan(Stages):
    """A plan that the generator makes."""

    def __init__(self, session: Session, spec: Spec, settings: Settings) -> None:
        super().__init__(session, spec, settings)
        names = (settings.model_name, settings.provider_name)
        self._mode = "rules" if spec.kind == "rules" else "values"
        self._headings = [
            section.heading.replace("{model_name}", names[0]).replace("{provider_name}", names[1]) for section in spec.sections
        ]
        self._parts: list[Subdomain] = []
        self._shape = Shape.of(settings.n, settings.types)
        self._cells: dict[tuple[int, int], Cell | None] = {}
        self._assertions: dict[int, list[str]] = {}
        self._used = self._further = 0

    async def next(self, count: int) -> list[Draft] | None:
        """The drafts of the next turns. Raises as `Session.answers`, or `WorkError` without domains or subdomains."""
        if not self._parts:
            self._parts = await self._subdomains()
            self._shape = self._shape.filled(self._settings.n, len(self._parts))
            self._ideas = self._shape.ideas
        turns = [(part.place, place) for part in self._parts for place in range(self._shape.types)]
        if self._used >= self._ideas * len(turns):
            if self._further == FURTHER_ROUNDS:
                return None
            self._further += 1
            self._ideas += max(1, min(MOST_IDEAS, math.ceil(count * SURPLUS / len(turns))))
        # Layer by layer: the first idea of every cell, then the second of every cell, each time in another order.
        order = [(cell, layer) for layer in range(self._ideas) for cell in self._shuffled(turns, layer)]
        batch = order[self._used : self._used + count]
        self._used += len(batch)
        await self._open_cells(cell for cell, _ in batch)
        await self._have_ideas([cell for cell, _ in batch], 1 + max(layer for _, layer in batch))
        return [draft for cell, layer in batch if (draft := self._draft(cell, layer))]

    def _shuffled(self, turns: list[tuple[int, int]], layer: int) -> list[tuple[int, int]]:
        return random.Random(f"{self._settings.seed}/{layer}").sample(turns, len(turns))

    async def _subdomains(self) -> list[Subdomain]:
        fewest, most = self._shape.domains
        prompt = fill("domains", **self._names, fewest=fewest, most=most)
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
                fewest=self._shape.subdomains[0],
                most=self._shape.subdomains[1],
            )
            asks.append(Ask("subdomains", f"d{place:02}", prompt, _LIST_TOKENS, self._read_subdomains))
        answers = await self._session.answers(asks)
        names = {ask.item: entry["domain"] for ask, entry in zip(asks, domains["domains"].value, strict=True)}
        found = [
            (names[item], entry) for item, answer in answers.items() for entry in answer.value[: self._shape.subdomains[1]]
        ]
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

    async def _open_cells(self, places: Iterable[tuple[int, int]]) -> None:
        """Gets assertions and types of the subdomains whose cells have not been opened yet."""
        new = sorted({subdomain for subdomain, _ in places if (subdomain, 0) not in self._cells})
        asks = []
        for place in new:
            slots = self._slots(self._parts[place])
            prompt = fill(f"assertions_{self._mode}", **slots, section=self._parts[place].section, most=_MOST_ASSERTIONS)
            asks.append(Ask("assertions", f"s{place:02}", prompt, _LIST_TOKENS, _read_assertions))
        assertions = await self._session.answers(asks)
        for place in new:
            if answer := assertions.get(f"s{place:02}"):
                self._assertions[place] = [f"{entry['assertion']} {entry['explanation']}" for entry in answer.value]
        count = self._shape.types
        kinds = []
        for place in new:
            if place in self._assertions:
                slots = self._slots(self._parts[place])
                prompt = fill("types", **slots, assertions=listed(self._assertions[place]), count=count)
                kinds.append(Ask("types", f"s{place:02}", prompt, _LIST_TOKENS, _reader_of_types(count)))
        types = await self._session.answers(kinds)
        for place in new:
            found = answer.value if (answer := types.get(f"s{place:02}")) else []
            for number in range(count):  # a cell without a type is void: its turns pass
                entry = found[number] if number < len(found) else None
                cell = Cell(self._parts[place], number, entry["type"], entry["description"]) if entry else None
                self._cells[place, number] = cell

    async def _have_ideas(self, places: Iterable[tuple[int, int]], count: int) -> None:
        """Asks cells for ideas until each has `count` of them, or has none to give."""
        waiting = {place: cell for place in places if (cell := self._cells[place]) and len(cell.ideas) < count}
        upto = max(self._shape.ideas, count)
        while waiting:
            asks = [self._ideas_ask(cell, upto) for _, cell in sorted(waiting.items())]
            answers = await self._session.answers(asks)
            for (place, cell), ask in zip(sorted(waiting.items()), asks, strict=True):
                if answer := answers.get(ask.item):
                    for entry in answer.value[: upto - len(cell.ideas)]:
                        cell.ideas.append(entry["idea"] if self._is_new(entry["idea"]) else None)
                else:
                    # Given up: its turns pass, and it is not asked again.
                    cell.ideas += [None] * (count - len(cell.ideas))
                if len(cell.ideas) >= count:
                    del waiting[place]

    def _ideas_ask(self, cell: Cell, upto: int) -> Ask[list[dict[str, str]]]:
        count = min(MOST_IDEAS, upto - len(cell.ideas))
        existing = [idea for idea in cell.ideas if idea][-_SHOWN_IDEAS:]
        prompt = fill(
            "ideas",
            **self._slots(cell.subdomain),
            type=cell.type,
            description=cell.description,
            assertions=listed(self._assertions[cell.subdomain.place]),
            existing=listed(existing),
            count=count,
        )
        item = f"s{cell.subdomain.place:02}-t{cell.place:02}-from{len(cell.ideas):03}"
        return Ask("ideas", item, prompt, _LIST_TOKENS, _reader_of_ideas(count))

    def _draft(self, place: tuple[int, int], layer: int) -> Draft | None:
        cell = self._cells[place]
        idea = cell.ideas[layer] if cell and layer < len(cell.ideas) else None
        if cell is None or idea is None:
            return None
        item = f"s{cell.subdomain.place:02}-t{cell.place:02}-i{layer:03}"
        assertions = tuple(self._assertions[cell.subdomain.place])
        return Draft(item, cell.subdomain.domain, cell.subdomain.name, cell.type, cell.description, assertions, idea)

    def _slots(self, subdomain: Subdomain) -> dict[str, str]:
        return {**self._names, "domain": subdomain.domain, "subdomain": subdomain.name, "context": subdomain.context}


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
