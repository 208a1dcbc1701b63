"""What the check of an adapter says, on losses that are given."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_bench.checkpoints.held_out import HELD_OUT_FILE, HeldOutRow, read_held_out
from msm_bench.errors import CorruptWeightsError, WorkError
from msm_bench.experiment.serving.check import check_checkpoint, match
from msm_bench.experiment.serving.client import Client


class Given(Client):
    """A server with a fixed loss for each row, told apart by its first token."""

    def __init__(self, **losses: Sequence[float]) -> None:
        self._losses = losses

    def losses(self, model: str, ids: Sequence[int], scored: Sequence[int]) -> list[float]:
        return [self._losses[model][ids[0]]] * len(scored)


def rows(*losses: tuple[float, float]) -> list[HeldOutRow]:
    return [
        HeldOutRow(row=f"r{n}", ids=(n, *range(20)), scored=tuple(range(1, 11 + n)), loss=with_adapter, loss_base=base)
        for n, (with_adapter, base) in enumerate(losses)
    ]


TWO = rows((2.0, 3.0), (4.0, 4.4))


def test_a_match_holds_the_numbers() -> None:
    found = check_checkpoint(Given(a=[2.01, 4.01], base=[3, 4.4]), "a", "base", TWO, 0.05)
    assert (found.rows, found.tokens) == (2, 21)
    assert found.server == pytest.approx((10 * 2.01 + 11 * 4.01) / 21)
    assert found.recorded == pytest.approx((10 * 2 + 11 * 4) / 21)
    assert found.recorded_base == pytest.approx((10 * 3 + 11 * 4.4) / 21)
    assert found.off_recorded == pytest.approx(0.01)
    assert found.off_base == pytest.approx(((10 * 0.99**2 + 11 * 0.39**2) / 21) ** 0.5)


@pytest.mark.parametrize(
    ("served", "base", "record", "reason"),
    [
        ([3.0, 4.4], [3.0, 4.4], TWO, "with the base alone"),
        ([3.0001, 4.4], [3.0, 4.4], TWO, "with the base alone"),
        ([2.5, 4.2], [3.0, 4.4], TWO, "another adapter than the checkpoint's"),
        # as far from the record in the one row as in the other, and the mean is equal
        ([2.44, 3.6], [3.0, 4.4], TWO, "another adapter than the checkpoint's"),
        ([2.6, 4.9], [3.5, 5.2], TWO, "base is not the one"),
        ([2.999, 4.399], [3.0, 4.4], rows((2.997, 3.0), (4.399, 4.4)), "changes too little"),
    ],
)
def test_the_reason_fits(served: list[float], base: list[float], record: list[HeldOutRow], reason: str) -> None:
    with pytest.raises(WorkError, match=reason) as caught:
        check_checkpoint(Given(a=served, base=base), "a", "base", record, 0.05)
    for number in (match(record, served).server, match(record, served).recorded, match(record, served).recorded_base):
        assert f"{number:.4f}" in str(caught.value)


@given(
    st.lists(st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)), min_size=1, max_size=8),
    st.floats(0.001, 0.5),
    st.data(),
)
def test_the_base_never_passes_and_the_record_does(
    losses: list[tuple[float, float]], tolerance: float, data: st.DataObject
) -> None:
    record = rows(*losses)
    effect = match(record, [base for _, base in losses]).off_recorded
    without = [base for _, base in losses]
    if effect > 0:
        with pytest.raises(WorkError):
            check_checkpoint(Given(a=without, base=without), "a", "base", record, tolerance)
    small = min(tolerance, effect / 3) * 0.99
    noisy = [with_adapter + data.draw(st.floats(-small, small)) for with_adapter, _ in losses]
    if effect > 1e-6:
        assert check_checkpoint(Given(a=noisy, base=without), "a", "base", record, tolerance).off_recorded <= tolerance


@pytest.mark.parametrize(
    "text", ["", "{}", '{"row": "r", "ids": [1, 2], "scored": [2], "loss": 1, "loss_base": 1}', "not json"], ids=str
)
def test_held_out_rows_that_do_not_fit_are_refused(tmp_path: Path, text: str) -> None:
    assert read_held_out(tmp_path) is None
    (tmp_path / HELD_OUT_FILE).write_text(text)
    with pytest.raises(CorruptWeightsError, match="Copy the whole checkpoint again"):
        read_held_out(tmp_path)
