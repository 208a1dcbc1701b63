"""Finds what a generation pipeline left behind: unfilled slots, its own tags, special tokens, empty or cut rows."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.checks.pieces import Piece
from msm_bench.corpus.checks.report import CheckName, Problem, Severity

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)

SHORTEST_DOCUMENT = 20
"""Words below which a document is too short to teach anything."""


class Leftover(BaseModel):
    """One kind of leftover, as in `leftovers.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    severity: Severity
    reason: str
    ignore_case: bool = False
    outside_code: bool = False
    only: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """A text without any of these strings cannot match; saves the search."""


@cache
def _rules(group: str) -> tuple[tuple[re.Pattern[str], Leftover], ...]:
    table = yaml.safe_load((files("msm_bench") / "corpus" / "checks" / "leftovers.yaml").read_text(encoding="utf-8"))
    rules = [Leftover.model_validate(entry) for entry in table[group]]
    return tuple((re.compile(rule.pattern, re.IGNORECASE if rule.ignore_case else 0), rule) for rule in rules)


def placeholders(piece: Piece) -> Iterator[Problem]:
    """Slots that nothing filled, each kind once a text."""
    yield from _matches(piece, "placeholder", "placeholders")


def leftovers(piece: Piece) -> Iterator[Problem]:
    """Tags, special tokens and talk of the generator, each kind once a text."""
    yield from _matches(piece, "leftover", "leftovers")


def blank(piece: Piece) -> Iterator[Problem]:
    """Texts without a word, and documents that are too short."""
    if not piece.text.strip():
        yield piece.problem("row", "stop", "the text is blank", found="")
    elif not piece.words and piece.role != "user":
        yield piece.problem("row", "shout", "the text has no word", found=piece.text)
    elif piece.role == "document" and len(piece.words) < SHORTEST_DOCUMENT:
        yield piece.problem("row", "shout", f"the document has only {len(piece.words)} words", found=piece.text)


def _matches(piece: Piece, check: CheckName, group: str) -> Iterator[Problem]:
    taken: list[tuple[int, int]] = []
    code = [match.span() for match in _CODE.finditer(piece.text)] if "`" in piece.text else []
    for pattern, rule in _rules(group):
        if (rule.only and piece.role not in rule.only) or (rule.needs and not any(part in piece.text for part in rule.needs)):
            continue
        first = True
        for match in pattern.finditer(piece.text):
            start, end = match.span()
            if rule.outside_code and any(begin <= start < last for begin, last in code):
                continue
            if any(start < last and begin < end for begin, last in taken):
                continue
            # Every place is taken, so that a looser pattern further down does not report the second one.
            taken.append((start, end))
            if first:
                yield piece.problem(check, rule.severity, rule.reason, (start, end))
            first = False
