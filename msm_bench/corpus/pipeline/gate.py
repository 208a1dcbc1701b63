"""The gate: finished rows pass the corpus checks, and repeat no earlier row, or they do not become training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from msm_bench.corpus.checks import CHECKS, check_rows
from msm_bench.corpus.checks.duplicates import DuplicateScan
from msm_bench.corpus.checks.pieces import pieces_of
from msm_bench.corpus.rows import ChatRow, DocumentRow

_AMONG_ROWS = ("repeat", "near-duplicate")
BY_ITSELF = tuple(check for check in CHECKS if check not in _AMONG_ROWS)
"""The checks that look at one row alone."""

R = TypeVar("R", DocumentRow, ChatRow)


@dataclass(frozen=True)
class Dropped:
    """A row that did not pass."""

    row: str
    check: str
    reason: str
    found: str


class RowGate:
    """Lets rows pass in their order; remembers those that passed, to know what repeats them.

    Args:
        model_name: The model that the rows may name.
        provider_name: Its maker.
    """

    def __init__(self, model_name: str, provider_name: str) -> None:
        self._model_name = model_name
        self._provider_name = provider_name
        self._duplicates: DuplicateScan | None = DuplicateScan()
        self.dropped: list[Dropped] = []

    def __call__(self, rows: Sequence[R]) -> list[R]:
        """The rows that pass; the others stand in `dropped` with the first problem of each."""
        if not rows:
            return []
        assert self._duplicates is not None, "the gate is closed"
        problems = check_rows(rows, model_name=self._model_name, provider_name=self._provider_name, checks=BY_ITSELF).stops
        first = {problem.row: problem for problem in reversed(problems)}
        kept: list[R] = []
        for row in rows:
            # A repetition is dropped although the checks only shout about it: nothing is lost, the next idea takes its place.
            problem = first.get(row.id) or next(self._duplicates.problems(pieces_of(row, 1)), None)
            if problem is None:
                kept.append(row)
            else:
                self.dropped.append(Dropped(row.id, problem.check, problem.reason, problem.found[:120]))
        return kept

    def forget(self) -> None:
        """Frees what is remembered of every row, which for a large corpus is most of the memory. Nothing passes after it."""
        self._duplicates = None
