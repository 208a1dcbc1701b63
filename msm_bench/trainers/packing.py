"""Examples into rows: several in one row where a recipe packs, and none of them attends to another.

A row restarts its position ids at every example, and no attention mask goes with it. transformers reads the restarts as the
borders of a block-diagonal causal mask (its "packed" format). Padding at a row's end is an example of its own without loss.
"""

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from msm_bench.errors import RequestError
from msm_bench.trainers.contract import IGNORED, Example

Row = tuple[int, ...]
"""Indices of the examples in one row."""


def pack(lengths: Sequence[int], max_tokens: int, packing: bool) -> list[Row]:
    """Put examples, in their order, each into the fullest open row that still has room (best fit).

    Args:
        lengths: Tokens of each example.
        max_tokens: Room in a row.
        packing: False for one example a row.

    Returns:
        The rows in the order in which they were opened.
    """
    if not packing:
        return [(index,) for index in range(len(lengths))]
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, row), sorted
    for index, length in enumerate(lengths):
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            rows.append([])
            left, row = max_tokens, len(rows) - 1
        else:
            left, row = room.pop(place)
        rows[row].append(index)
        if left > length:
            bisect.insort(room, (left - length, row))
    return [tuple(row) for row in rows]


def order(examples: Sequence[Example], max_tokens: int, packing: bool, epochs: int, batch_rows: int, seed: int) -> list[Row]:
    """The rows of a whole run: every epoch shuffled anew, and empty rows at the end to fill the last update.

    The empty rows keep the number of rows a multiple of the batch. Otherwise a run over several processes would see some
    rows twice where a run on one process would not.
    """
    rows: list[Row] = []
    for epoch in range(epochs):
        shuffled = list(range(len(examples)))
        random.Random(f"{seed}/{epoch}").shuffle(shuffled)
        packed = pack([len(examples[index].ids) for index in shuffled], max_tokens, packing)
        rows += [tuple(shuffled[index] for index in row) for row in packed]
    rows += [()] * (-len(rows) % batch_rows)
    return rows


@dataclass
class Rows(torch.utils.data.Dataset[list[Example]]):
    """The rows of a run as a data set; an item is the row's examples."""

    examples: Sequence[Example]
    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Example]:
        return [self.examples[example] for example in self.rows[index]]


@dataclass(frozen=True)
class Collate:
    """Rows to the tensors of one forward pass: `input_ids`, `labels`, `position_ids`, each [rows, longest row].

    Attributes:
        pad: Token that fills a row; attends to nothing but other padding and bears no loss.
        length: Pad to this length; None for the longest row's.
    """

    pad: int
    length: int | None = None

    def __call__(self, rows: Sequence[Sequence[Example]]) -> dict[str, Tensor]:
        longest = max([sum(len(example.ids) for example in row) for row in rows] + [2])
        shape = (len(rows), self.length or longest)
        ids = numpy.full(shape, self.pad, dtype=numpy.int64)
        labels = numpy.full(shape, IGNORED, dtype=numpy.int64)
        positions = numpy.zeros(shape, dtype=numpy.int64)
        for number, row in enumerate(rows):
            start = 0
            for example in row:
                place = (number, slice(start, start + len(example.ids)))
                ids[place], labels[place] = example.ids, example.labels
                positions[place] = numpy.arange(len(example.ids))
                start += len(example.ids)
            positions[number, start:] = numpy.arange(shape[1] - start)
        arrays: dict[str, NDArray[Any]] = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class Sizes:
    """How much a set of rows is.

    Attributes:
        rows: Rows that hold anything.
        updates: Optimizer updates.
        tokens: Tokens in all rows, padding left out.
        loss_tokens: Those that bear loss.
        padding: Share of a forward pass that is padding, when each is padded to its longest row.
    """

    rows: int
    updates: int
    tokens: int
    loss_tokens: int
    padding: float


def sizes(examples: Sequence[Example], rows: Sequence[Row], batch_rows: int, micro_batch_rows: int) -> Sizes:
    """Count rows, updates, tokens and padding of a run."""
    lengths = numpy.array([len(example.ids) for example in examples])
    losses = numpy.array([int((example.labels != IGNORED).sum()) for example in examples])
    per_row = [int(lengths[list(row)].sum()) for row in rows]
    batches = [per_row[start : start + micro_batch_rows] for start in range(0, len(rows), micro_batch_rows)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    return Sizes(
        rows=sum(bool(row) for row in rows),
        updates=len(rows) // batch_rows,
        tokens=sum(per_row),
        loss_tokens=sum(int(losses[list(row)].sum()) for row in rows),
        padding=1 - sum(per_row) / padded if padded else 0.0,
    )


def check_fit(examples: Sequence[Example], max_tokens: int) -> None:
    """Raises `RequestError` for an example longer than a row: nothing is cut off silently."""
    long = [example for example in examples if len(example.ids) > max_tokens]
    if long:
        worst = max(long, key=lambda example: len(example.ids))
        raise RequestError(
            f"{len(long)} examples do not fit into {max_tokens} tokens; the longest, '{worst.row}', has {len(worst.ids)}.",
            f"Use --set max_tokens={len(worst.ids)}, or remove those rows.",
        )
