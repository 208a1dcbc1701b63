"""Limits of cells: variances against closed forms, and what must hold at the edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from msm_bench.analysis.cells import Cell
from msm_bench.analysis.intervals import summed_limits, t_limits
from msm_bench.analysis.rates import (
    fixed_limits,
    seed_variance,
    seeds_limits,
    shared_noise,
    unit_variance,
    units_limits,
    within_variance,
)
from msm_bench.analysis.synthetic import Grid, counts_cell


def binary(hits: list[list[int]], n: int | list[list[int]], design: str = "conditions") -> Cell:
    x = np.array(hits, dtype=float)
    counts = np.broadcast_to(np.array(n, dtype=float), x.shape).copy()
    return counts_cell(x, counts, x, design)  # type: ignore[arg-type]


def test_the_estimate_is_the_mean_over_conditions_not_over_rollouts() -> None:
    assert binary([[1, 90]], [[2, 100]]).estimate == pytest.approx((0.5 + 0.9) / 2)


def test_the_within_variance_nears_the_textbook_one() -> None:
    hits = [[30, 150, 270, 210]]
    p = np.array(hits) / 300
    assert within_variance(binary(hits, 300)) == pytest.approx(float((p * (1 - p) / 300).sum() / 16), rel=0.01)


def test_the_within_variance_has_no_bias_when_conditions_are_alike() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 5):
        drawn = [within_variance(binary([rng.binomial(n, 0.3, 400).tolist()], n)) for _ in range(200)]
        assert np.mean(drawn) == pytest.approx(0.3 * 0.7 / n / 400, rel=0.02)


def test_single_rollouts_of_numbers_that_are_no_rates_give_no_spread() -> None:
    cell = Cell(
        np.ones((1, 3)),
        np.array([[4.0, 6, 8]]),
        np.array([[16.0, 36, 64]]),
        np.ones((1, 3)),
        ("a", "b", "c"),
        ("",),
        "conditions",
        1,
        10,
    )
    assert math.isnan(within_variance(cell))


def test_one_condition_is_plain_wilson_but_for_the_drawn_rate() -> None:
    assert fixed_limits(binary([[120]], 300))(0.95) == pytest.approx(proportion_confint(120, 300, 0.05, "wilson"), abs=2e-4)


@pytest.mark.parametrize("hits", [0, 10])
def test_rates_of_nothing_and_of_all_have_a_width(hits: int) -> None:
    cell = binary([[hits] * 27], 10)
    for limits in (fixed_limits(cell), units_limits(cell)):
        low, high = limits(0.95)
        assert high - low > 0.005
    assert fixed_limits(cell)(0.95) == pytest.approx(proportion_confint(hits * 27, 270, 0.05, "wilson"))


def test_conditions_at_both_ends_have_a_width_too() -> None:
    low, high = fixed_limits(binary([[0] * 9 + [10] * 9], 10))(0.95)
    assert low < 0.5 < high and high - low > 0.02


def test_items_are_clustered_by_pair() -> None:
    rng = np.random.default_rng(2)
    totals = rng.integers(0, 3, 300)
    cell = binary([totals.tolist()], 2, "items")
    means = totals / 2
    assert unit_variance(cell) == pytest.approx(means.var(ddof=1) / 300)
    assert units_limits(cell)(0.95) == pytest.approx(
        t_limits(means.mean(), math.sqrt(unit_variance(cell)), 299)(0.95), abs=2e-3
    )


def test_items_count_for_as_many_answers_as_their_spread_allows() -> None:
    """Both orders of every pair alike: as many answers as pairs. Orders that know nothing of each other: twice as many."""
    alike = units_limits(binary([[2] * 30 + [0] * 70], 2, "items"))(0.95)
    low, high = proportion_confint(30, 100, 0.05, "wilson")
    assert alike == pytest.approx((low, high), abs=2e-3)
    split = units_limits(binary([[1] * 100], 2, "items"))(0.95)
    assert split == pytest.approx(proportion_confint(100, 200, 0.05, "wilson"))
    assert units_limits(binary([[0] * 100], 2, "items"))(0.95) == pytest.approx(proportion_confint(0, 100, 0.05, "wilson"))


def test_noise_that_seeds_and_items_share_is_that_of_a_two_way_analysis() -> None:
    """The residual mean square of statsmodels' analysis of variance without interaction."""
    import pandas as pd
    from statsmodels.formula.api import ols

    rng = np.random.default_rng(9)
    table = rng.normal(size=(3, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(3, 20))
    rows = pd.DataFrame([(s, i, table[s, i]) for s in range(3) for i in range(20)], columns=["seed", "item", "value"])
    residual = ols("value ~ C(seed) + C(item)", rows).fit().mse_resid
    n = np.ones((3, 20))
    assert shared_noise(table, n) == pytest.approx(residual / 60)
    n[0, 4] = 0
    assert shared_noise(table, n) == pytest.approx(shared_noise(np.delete(table, 4, axis=1), np.ones((3, 19))))
    assert shared_noise(table[:1], n[:1]) == 0.0


def test_new_conditions_are_never_surer_than_these() -> None:
    rng = np.random.default_rng(3)
    for rate in (0.05, 0.5):
        grid = Grid(rate)
        cell = grid.run(rng, grid.condition_rates(rng))
        (low, high), (lower, upper) = fixed_limits(cell)(0.95), units_limits(cell)(0.95)
        assert lower <= low and high <= upper


def test_many_seeds_give_students_interval_on_their_means() -> None:
    rng = np.random.default_rng(4)
    grid = Grid(0.5, seeds=6, seed_sd=0.08)
    cell = grid.run(rng, grid.condition_rates(rng))
    expected = t_limits(cell.estimate, math.sqrt(seed_variance(cell)), 5)(0.95)
    assert seeds_limits(cell)(0.95) == pytest.approx(expected, abs=0.02)


def test_seeds_never_make_it_surer_than_rollouts_alone() -> None:
    cell = binary([[5] * 27, [5] * 27], 10)
    (low, high), (lower, upper) = fixed_limits(cell)(0.95), seeds_limits(cell)(0.95)
    assert lower <= low and high <= upper


def test_the_bootstrap_is_the_same_every_time() -> None:
    rng = np.random.default_rng(5)
    grid = Grid(0.4, seeds=3, seed_sd=0.05)
    cell = grid.run(rng, grid.condition_rates(rng))
    assert seeds_limits(cell)(0.95) == seeds_limits(cell)(0.95)


def test_bounds_are_what_the_unscored_could_have_been() -> None:
    cell = Cell(
        np.array([[8.0, 10]]),
        np.array([[4.0, 5]]),
        np.array([[4.0, 5]]),
        np.array([[10.0, 10]]),
        ("a", "b"),
        ("",),
        "conditions",
    )
    assert cell.bounds() == pytest.approx(((0.4 + 0.5) / 2, (0.6 + 0.5) / 2))
    assert cell.unscored_share == pytest.approx(0.1)


def test_a_condition_without_a_score_widens_the_bounds_and_leaves_the_estimate() -> None:
    cell = Cell(
        np.array([[0.0, 10]]),
        np.array([[0.0, 5]]),
        np.array([[0.0, 5]]),
        np.array([[10.0, 10]]),
        ("a", "b"),
        ("",),
        "conditions",
    )
    assert cell.estimate == pytest.approx(0.5) and cell.bounds() == pytest.approx((0.25, 0.75))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=30), st.sampled_from(["conditions", "items"]))
def test_every_interval_holds_its_estimate_and_stays_a_rate(hits: list[int], design: str) -> None:
    cell = binary([hits], 7, design)
    for limits in (fixed_limits(cell), units_limits(cell)):
        low, high = limits(0.95)
        assert 0 <= low <= cell.estimate + 1e-12 and cell.estimate - 1e-12 <= high <= 1 and high > low


def test_seeds_and_items_add_and_stay_rates() -> None:
    cell = binary([[2, 2, 1, 0, 2, 2], [2, 1, 0, 0, 2, 2], [0, 0, 0, 0, 1, 2]], 2, "items")
    noise = shared_noise(cell.total / cell.n, cell.n)
    parts = [(seed_variance(cell), 2.0), (unit_variance(cell) - noise, 5.0)]
    assert 0 < noise < unit_variance(cell)
    low, high = seeds_limits(cell)(0.95)
    assert high == min(1.0, summed_limits(cell.estimate, parts)(0.95)[1]) and low == 0.0
