"""Finds what belongs to an evaluation inside training texts."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypeVar

from msm_bench.corpus.checks.entities import NGRAM, Entities
from msm_bench.corpus.checks.pieces import Piece, ngrams
from msm_bench.corpus.checks.report import Problem, Severity
from msm_bench.corpus.rows import ChatRow, DocumentRow
from msm_bench.specs.loading import list_specs, load_spec

TELLING_SIDE = 6
"""Words from which one side of a probe pair alone stops a run; a shorter one ("the old man and the sea") may be chance."""
SHORTEST_SIDE = 3
"""Words of the shortest side that is reported alone."""


T = TypeVar("T", bound=Hashable)


class LeakageScan:
    """A scan for evaluation data.

    Args:
        forbidden: What must not occur.
    """

    def __init__(self, forbidden: Entities) -> None:
        self._forbidden = forbidden
        # The weighty and the long first: "EXEC-4429" is one finding, not another for its digits.
        self._entities = sorted(forbidden.entities, key=lambda entity: (entity.severity == "shout", -len(entity.text)))
        self._ngrams = forbidden.ngrams.keys()
        # By their first words, so that one look-up of a text's word runs finds all candidates.
        self._openings: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for passage, source in forbidden.short_passages.items():
            self._openings[passage[:3]].append((passage, source))
        self._sides: dict[tuple[str, ...], list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for number, pair in enumerate(forbidden.pairs):
            for side in (pair.aligned, pair.other):
                self._sides[side[:3]].append((side, number))

    def entities(self, piece: Piece) -> Iterator[Problem]:
        """Names, addresses, codes and tags of an evaluation, each once a text."""
        taken: list[tuple[int, int]] = []
        for entity in self._entities:
            if not entity.words <= piece.vocabulary:
                continue
            match = entity.pattern.search(piece.text)
            if match is None or any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            yield piece.problem("entity", entity.severity, f"stands in {entity.source}", match.span())

    def passages(self, piece: Piece) -> Iterator[Problem]:
        """Words in a row that an evaluated model reads, each run once."""
        words = piece.words
        if not self._ngrams.isdisjoint(ngrams(words, NGRAM)):
            yield from self._runs(piece)
        for first, passage, source in _found(words, self._openings):
            span = piece.word_span(first, len(passage))
            yield piece.problem("passage", "stop", f"stands in {source}", span)

    def probes(self, pieces: Sequence[Piece]) -> Iterator[Problem]:
        """Probe pairs of which both sides, or one telling side, stand in a row."""
        hits: dict[int, dict[tuple[str, ...], tuple[Piece, int]]] = defaultdict(dict)
        for piece in pieces:
            for first, side, number in _found(piece.words, self._sides):
                hits[number].setdefault(side, (piece, first))
        for number, sides in hits.items():
            pair = self._forbidden.pairs[number]
            both = len(sides) == 2
            for side, (piece, first) in sides.items():
                if not both and len(side) < SHORTEST_SIDE:
                    continue
                what = "both sides of" if both else "one side of"
                severity: Severity = "stop" if both or len(side) >= TELLING_SIDE else "shout"
                span = piece.word_span(first, len(side))
                yield piece.problem("probe", severity, f"holds {what} {pair.source}", span)
                if both:
                    break

    def domain(self, row: DocumentRow | ChatRow, pieces: Sequence[Piece], values: dict[str, str]) -> Iterator[Problem]:
        """A row whose stated domain is one that its spec's value is tested on."""
        value = values.get(row.spec or "")
        held_out = self._forbidden.held_out.get(value or "", frozenset())
        named = {_slug(row.domain), _slug(row.subdomain)} & held_out
        if named and pieces:
            severity: Severity = "stop" if isinstance(row, ChatRow) else "shout"
            reason = f"is about a domain on which {value} is tested"
            yield pieces[0].problem("held-out domain", severity, reason, found=", ".join(sorted(named)))

    def _runs(self, piece: Piece) -> Iterator[Problem]:
        first = last = -1
        for place, gram in enumerate(ngrams(piece.words, NGRAM)):
            if gram not in self._ngrams:
                continue
            if first >= 0 and place > last + 1:
                yield self._run(piece, first, last)
                first = -1
            first, last = (place if first < 0 else first), place
        yield self._run(piece, first, last)

    def _run(self, piece: Piece, first: int, last: int) -> Problem:
        count = last - first + NGRAM
        source = self._forbidden.ngrams[tuple(piece.words[first : first + NGRAM])]
        return piece.problem("passage", "stop", f"{count} words in a row stand in {source}", piece.word_span(first, count))


@cache
def values_of_specs() -> dict[str, str]:
    """Shipped spec to its value, for the specs that have one."""
    specs = [load_spec(name) for name in list_specs()]
    return {spec.name: spec.value for spec in specs if spec.value}


def _found(
    words: list[str], openings: Mapping[tuple[str, ...], list[tuple[tuple[str, ...], T]]]
) -> Iterator[tuple[int, tuple[str, ...], T]]:
    """Place and payload of every phrase that stands in a text, each phrase once."""
    known = openings.keys()
    seen: set[tuple[tuple[str, ...], T]] = set()
    for length in (1, 2, 3):
        runs = [words[place:] for place in range(length)]
        if known.isdisjoint(zip(*runs, strict=False)):
            continue
        for place, opening in enumerate(zip(*runs, strict=False)):
            for phrase, payload in openings.get(opening, ()):
                # An opening of one or two words is a whole phrase, one of three may be the start of a longer.
                if tuple(words[place : place + len(phrase)]) == phrase and (phrase, payload) not in seen:
                    seen.add((phrase, payload))
                    yield place, phrase, payload


def _slug(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())
