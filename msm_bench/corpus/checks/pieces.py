"""The texts of a row, each with its words: what every check reads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from msm_bench.corpus.checks.report import CheckName, Problem, Severity
from msm_bench.corpus.rows import ChatRow, DocumentRow

# Letters and digits apart, so that "Qwen2.5" has the word "qwen". Apostrophes and hyphens separate.
_WORD = re.compile(r"[^\W\d_]+|\d+")


def split_words(text: str) -> list[str]:
    """The words of a text, case folded; runs of digits are words of their own."""
    return _WORD.findall(text.casefold())


def ngrams(words: list[str], count: int) -> Iterator[tuple[str, ...]]:
    """All runs of so many words."""
    return zip(*(words[place:] for place in range(count)), strict=False)


@dataclass(frozen=True)
class Piece:
    """One text of one row."""

    row: str
    line: int
    where: str
    role: str
    """"document", "system", "user", "assistant" or "reasoning"."""
    text: str

    @cached_property
    def words(self) -> list[str]:
        """The words of the text, in order."""
        return split_words(self.text)

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words of the text, each once: a quick way to tell that something is not there."""
        return frozenset(self.words)

    def word_span(self, first: int, count: int) -> tuple[int, int]:
        """Character offsets of `count` words from the word `first` on."""
        # Case folding may change lengths ("ß"), so the offsets are taken from the text as it stands.
        spans = [match.span() for match in _WORD.finditer(self.text)]
        return spans[first][0], spans[min(first + count, len(spans)) - 1][1]

    def problem(
        self,
        check: CheckName,
        severity: Severity,
        reason: str,
        span: tuple[int, int] | None = None,
        found: str | None = None,
    ) -> Problem:
        """A problem in this text."""
        start, end = span if span else (None, None)
        words = found if found is not None else self.text[start:end]
        return Problem(
            check=check,
            severity=severity,
            row=self.row,
            line=self.line,
            where=self.where,
            start=start,
            end=end,
            found=_shortened(words),
            reason=reason,
        )


def pieces_of(row: DocumentRow | ChatRow, line: int) -> list[Piece]:
    """The texts of a row, in reading order; an assistant's reasoning stands before its answer."""
    if isinstance(row, DocumentRow):
        return [Piece(row.id, line, "text", "document", row.text)]
    pieces = []
    for number, message in enumerate(row.messages):
        if message.reasoning is not None:
            pieces.append(Piece(row.id, line, f"messages[{number}].reasoning", "reasoning", message.reasoning))
        pieces.append(Piece(row.id, line, f"messages[{number}]", message.role, message.content))
    return pieces


def _shortened(text: str, limit: int = 120) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
