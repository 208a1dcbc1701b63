"""Each interval against an independent implementation or a closed form, and the laws that every one must obey."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from msm_bench.analysis.intervals import (
    combined_df,
    difference_limits,
    equivalence_p,
    holm,
    hull,
    p_value,
    paired_limits,
    quantile,
    ratio_limits,
    skewed_limits,
    summed_limits,
    t_limits,
    wilson_limits,
)


@pytest.mark.parametrize(("x", "n"), [(0, 10), (3, 10), (10, 10), (1, 300), (250, 675)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_that_of_statsmodels(x: int, n: int, confidence: float) -> None:
    assert wilson_limits(x / n, n)(confidence) == pytest.approx(proportion_confint(x, n, 1 - confidence, "wilson"), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [((30, 60), (15, 60)), ((0, 20), (5, 25)), ((20, 20), (0, 20))])
def test_the_difference_is_newcombes(a: tuple[int, int], b: tuple[int, int]) -> None:
    ours = difference_limits(a[0] / a[1], wilson_limits(a[0] / a[1], a[1]), b[0] / b[1], wilson_limits(b[0] / b[1], b[1]))(0.95)
    assert ours == pytest.approx(confint_proportions_2indep(*a, *b, method="newcomb", compare="diff"), abs=1e-12)


def test_the_ratio_is_close_to_the_log_normal_one_in_large_samples() -> None:
    ours = ratio_limits(0.3, wilson_limits(0.3, 20_000), 0.2, wilson_limits(0.2, 20_000))(0.95)
    theirs = confint_proportions_2indep(6000, 20_000, 4000, 20_000, method="log", compare="ratio")
    assert ours == pytest.approx(theirs, rel=2e-3)


def test_a_ratio_over_nothing_is_absent_and_one_of_nothing_starts_at_zero() -> None:
    nothing, some = wilson_limits(0.0, 50), wilson_limits(0.4, 50)
    assert all(math.isnan(limit) for limit in ratio_limits(0.4, some, 0.0, nothing)(0.95))
    low, high = ratio_limits(0.0, nothing, 0.4, some)(0.95)
    assert low == 0 and 0 < high < 1


def test_t_limits_and_their_p_are_those_of_scipys_t_test() -> None:
    values = np.array([0.1, 0.4, -0.2, 0.3, 0.25, 0.6])
    limits = t_limits(values.mean(), stats.sem(values), len(values) - 1)
    test = stats.ttest_1samp(values, 0)
    assert limits(0.95) == pytest.approx(tuple(test.confidence_interval(0.95)), abs=1e-12)
    assert p_value(limits, values.mean()) == pytest.approx(test.pvalue, rel=1e-6)


def test_equivalence_is_the_larger_of_two_one_sided_tests() -> None:
    values = np.array([0.01, -0.02, 0.03, 0.0, 0.02, -0.01])
    limits = t_limits(values.mean(), stats.sem(values), len(values) - 1)
    expected = max(
        stats.ttest_1samp(values, 0.05, alternative="less").pvalue,
        stats.ttest_1samp(values, -0.05, alternative="greater").pvalue,
    )
    assert equivalence_p(limits, values.mean(), 0.05) == pytest.approx(expected, rel=1e-6)
    assert equivalence_p(limits, 0.06, 0.05) == 1.0


def test_paired_limits_are_students_where_enough_pairs_differ() -> None:
    values = np.array([1.0] * 12 + [-1.0] * 4 + [0.0] * 24)
    assert paired_limits(values)(0.95) == pytest.approx(stats.t.interval(0.95, 39, values.mean(), stats.sem(values)))


def test_paired_limits_without_a_difference_are_bonett_and_prices() -> None:
    n = 40
    low, high = paired_limits(np.zeros(n))(0.95)
    # Two imagined pairs at +1 and -1: mean 0, sum of squares 2, among 42.
    half = quantile(0.95, n - 1) * math.sqrt(2 / 41 / 42)
    assert (low, high) == pytest.approx((-half, half))
    few = paired_limits(np.array([1.0] + [0.0] * 39))(0.95)
    assert few[0] < 1 / 40 < few[1] and few[1] - few[0] < 2 * half * 1.2


@pytest.mark.parametrize(("seeds", "floor", "ceiling"), [(2, 0.93, 0.985), (3, 0.94, 0.97), (5, 0.943, 0.965)])
def test_a_sum_of_variances_is_covered_whatever_their_shares(seeds: int, floor: float, ceiling: float) -> None:
    """One part known well, one from few seeds: drawn as normal values, over all shares of the few."""
    rng, runs = np.random.default_rng(11), 4000
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        means = rng.normal(0, math.sqrt(share * seeds), (runs, seeds))
        other = rng.normal(0, math.sqrt(1 - share), runs)
        estimates = means.mean(axis=1) + other
        held = sum(
            low <= 0 <= high
            for estimate, variance in zip(estimates, means.var(axis=1, ddof=1) / seeds, strict=True)
            for low, high in [summed_limits(float(estimate), [(float(variance), seeds - 1), (1 - share, 1000)])(0.95)]
        )
        assert floor <= held / runs <= ceiling, share


def test_without_skewness_halls_limits_are_students() -> None:
    values = np.array([0.2, 0.3, 0.4, 0.5, 0.6])
    se = float(stats.sem(values))
    assert skewed_limits(values, se)(0.95) == pytest.approx(t_limits(0.4, se, 4)(0.95))


def test_skewed_values_get_a_longer_arm_on_their_long_side() -> None:
    values = np.array([0.0] * 20 + [0.1, 0.1, 0.2, 0.3, 0.6, 0.8])
    low, high = skewed_limits(values, float(stats.sem(values)))(0.95)
    assert high - values.mean() > 1.3 * (values.mean() - low)


@pytest.mark.parametrize("ps", [[0.5], [0.01, 0.04, 0.03, 0.005], [1.0, 1e-9, 0.2, 0.2], [0.02] * 6])
def test_holm_is_that_of_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_holm_leaves_absent_ps_out() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)


def test_combined_degrees_of_freedom_are_welchs() -> None:
    a, b = np.array([1.0, 2, 4, 7]), np.array([2.0, 2.5, 3])
    parts = [(x.var(ddof=1) / len(x), len(x) - 1) for x in (a, b)]
    assert combined_df(parts) == pytest.approx(stats.ttest_ind(a, b, equal_var=False).df)
    assert combined_df([(1.0, math.inf)]) == math.inf


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.integers(1, 400), st.floats(0, 1))
def test_every_p_agrees_with_its_interval(n: int, share: float, m: int, other: float) -> None:
    a, b = round(share * n) / n, round(other * m) / m
    limits = hull(difference_limits(a, wilson_limits(a, n), b, wilson_limits(b, m)), t_limits(a - b, 0.01, 3))
    p = p_value(limits, a - b)
    low, high = limits(0.95)
    assert low < a - b < high or a == b
    assert 0 < p <= 1
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (low > 0 or high < 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.floats(0, 1), st.sampled_from([3.0, 26.0, math.inf]))
def test_wilson_has_a_width_everywhere_and_stays_inside(n: int, share: float, df: float) -> None:
    rate = round(share * n) / n
    low, high = wilson_limits(rate, n, df)(0.95)
    assert 0 <= low <= rate <= high <= 1 and high > low
