"""The held-out rows that a checkpoint carries are those of its record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msm_bench.checkpoints.held_out import read_held_out
from msm_bench.trainers import held_out
from msm_bench.trainers.contract import IGNORED, Example


def test_their_losses_are_the_record_s(quick: Callable[..., Any], tmp_path: Path) -> None:
    record = quick("aft", tmp_path / "out", overrides={"held_out": "0.1"})
    rows = read_held_out(tmp_path / "out")
    assert rows is not None and len(rows) == record.data.held_out <= held_out.ROWS
    tokens = sum(len(row.scored) for row in rows)
    for key, metric in (("loss", "held_out"), ("loss_base", "held_out_base")):
        assert sum(getattr(row, key) * len(row.scored) for row in rows) / tokens == pytest.approx(
            record.metrics[metric], abs=1e-4
        )
    # A chat's question bears no loss.
    assert all(row.scored[0] > 1 and len(row.scored) < len(row.ids) - 1 for row in rows)


def test_few_rows_are_taken_from_all_over_and_long_ones_are_cut() -> None:
    length = held_out.LENGTH * 3
    long = [Example.of([1] * length, [1] * length, row=str(number)) for number in range(20)]
    taken = held_out._spread(long)
    assert [example.row for example in taken] == ["0", "2", "5", "7", "10", "12", "15", "17"]
    assert len(held_out._cut(long[0]).ids) == held_out.LENGTH
    late = Example.of([1] * length, [IGNORED] * (length - 5) + [1] * 5, row="late")
    assert (held_out._cut(late).labels != IGNORED).sum() == 5
