"""Contrasts recomputed by hand: every number is written out, and no function of the analysis is used for what is expected.

Student's t at 97.5 %: 2.570582 (5 degrees of freedom), 12.706205 (1). Normal quantile: 1.959964.
"""

from math import sqrt
from pathlib import Path

import pytest
from log_makers import agentic, preferences

from msm_bench.analysis.compare import compare
from msm_bench.analysis.contrasts import ContrastResult

A = {
    "america": ((1, 1), (1, 1), (1, 0), (1, 1), (0, 1), (1, 1)),
    "affordability": ((0, 0), (1, 0), (0, 0), (0, 1), (0, 0), (1, 1)),
}
B = {
    "america": ((0, 0), (1, 0), (0, 0), (1, 1), (0, 0), (0, 1)),
    "affordability": ((1, 0), (1, 1), (1, 0), (1, 1), (0, 1), (1, 1)),
}


def contrast(folder: Path, text: str, key: str) -> ContrastResult:
    (found,) = [one for one in compare(folder, contrasts=[text]).contrasts if one.key == key]
    return found


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    """Six pairs a value, each asked in both orders, for arms a and b."""
    for arm, answers in (("a", A), ("b", B)):
        rows = {
            f"{value}/food/{n:03d}": (float(ab), float(ba))
            for value, pairs in answers.items()
            for n, (ab, ba) in enumerate(pairs)
        }
        preferences(tmp_path / f"{arm}.eval", rows, arm=arm)
    return tmp_path


def test_a_paired_contrast(probes: Path) -> None:
    """On america the pairs' means are 1, 1, .5, 1, .5, 1 for a and 0, .5, 0, 1, 0, .5 for b.

    Differences 1, .5, .5, 0, .5, .5: sum 3, mean .5. Deviations .5, 0, 0, -.5, 0, 0: squares .25 + .25 = .5; variance .5 / 5 =
    .1; standard error sqrt(.1 / 6) = .1290994; half width 2.570582 x .1290994 = .3318605.
    """
    found = contrast(probes, "a vs b on america", "aligned")
    assert found.difference == pytest.approx(0.5) and found.pairs == 6
    assert (found.low, found.high) == pytest.approx((0.5 - 0.3318605, 0.5 + 0.3318605), abs=1e-6)
    assert found.ratio == pytest.approx((5 / 6) / (2 / 6))


def test_the_interaction_contrast(probes: Path) -> None:
    """On affordability the pairs' means are 0, .5, 0, .5, 0, 1 for a and .5, 1, .5, 1, .5, 1 for b.

    Differences -.5, -.5, -.5, -.5, -.5, 0: sum -2.5, mean -.4166667. Squared deviations 5 x .0833333^2 + .4166667^2 = .2083333;
    variance .0416667; standard error sqrt(.0416667 / 6) = .0833333; half width 2.570582 x .0833333 = .2142152.
    The interaction is .5 + .4166667 = .9166667; its half width sqrt(.3318605^2 + .2142152^2) = sqrt(.1560195) = .3949931.
    """
    found = contrast(probes, "a vs b on america minus affordability", "aligned")
    assert found.difference == pytest.approx(0.9166667) and found.pairs == 12
    assert (found.low, found.high) == pytest.approx((0.9166667 - 0.3949931, 0.9166667 + 0.3949931), abs=1e-6)
    assert found.verdict == "interaction above 0"


def test_the_interaction_over_two_seeds(tmp_path: Path) -> None:
    """Six pairs a value; differences on america 1, 1, 1, 1, 1, 1 for seed 0 and 1, .5, .5, .5, .5, 0 for seed 1, else none.

    Interaction by seed 1 and .5: mean .75, variance .125, of the mean .0625, 1 degree of freedom.
    Items of america: means over seeds 1, .75, .75, .75, .75, .5, variance .125 / 5 = .025, over 6 pairs .0041667. Residuals of
    the 2 x 6 table: -.25, 0, 0, 0, 0, .25 and the reverse, squares .25 over 5 degrees of freedom .05, over 12 cells .0041667:
    all of the items' variance is the answers' own, and nothing is left. Affordability adds 0. One part remains, so the half
    width is 12.706205 x sqrt(.0625) = 3.176551.
    """
    seeds = (((1, 1),) * 6, ((1, 1), (1, 0), (0, 1), (1, 0), (0, 1), (0, 0)))
    same = {f"affordability/food/{n:03d}": (1.0, 0.0) for n in range(6)}
    for seed, answers in enumerate(seeds):
        america = {f"america/food/{n:03d}": (float(ab), float(ba)) for n, (ab, ba) in enumerate(answers)}
        preferences(tmp_path / f"a{seed}.eval", {**america, **same}, arm="a", metadata={"seed": seed})
        preferences(
            tmp_path / f"b{seed}.eval", {**dict.fromkeys(america, (0.0, 0.0)), **same}, arm="b", metadata={"seed": seed}
        )
    found = contrast(tmp_path, "a vs b on america minus affordability", "aligned")
    assert found.difference == pytest.approx(0.75) and found.seeds == 2
    assert (found.low, found.high) == pytest.approx((0.75 - 3.176551, 0.75 + 3.176551), abs=1e-5)


def test_a_contrast_over_conditions(tmp_path: Path) -> None:
    """Arm a decided in 6 and 3 of 10 rollouts of two conditions, arm b in 2 and 1 of 10.

    a: rate .45. Drawn towards it by one rollout: 6.45 / 11 = .5863636 and 3.45 / 11 = .3136364, p(1 - p) = .2425413 and
    .2152686; divided by 1 - 10 / 121 = .9173554: .2643919 and .2346621. Variance (.2643919 + .2346621) / 10 / 4 = .0124763.
    Effective rollouts .2475 / .0124763 = 19.83754.
    b: rate .15. 2.15 / 11 = .1954545 and 1.15 / 11 = .1045455: .1572521 and .0936157; .1714189 and .1020496; variance .0068367;
    effective rollouts .1275 / .0068367 = 18.64934.
    Wilson's limits of both, and of the difference the squares of the distances added (Newcombe).
    """
    agentic(tmp_path / "a.eval", {"murder/none": (6, 10), "murder/america": (3, 10)}, arm="a")
    agentic(tmp_path / "b.eval", {"murder/none": (2, 10), "murder/america": (1, 10)}, arm="b")
    z2 = 3.841459

    def wilson(rate: float, n: float) -> tuple[float, float]:
        middle, half = (rate + z2 / 2 / n) / (1 + z2 / n), sqrt(z2 * (rate * (1 - rate) / n + z2 / 4 / n**2)) / (1 + z2 / n)
        return middle - half, middle + half

    low_a, high_a = wilson(0.45, 19.83754)
    low_b, high_b = wilson(0.15, 18.64934)
    found = contrast(tmp_path, "a vs b", "decided")
    assert found.difference == pytest.approx(0.3) and found.pairs == 2
    expected = (0.3 - sqrt((0.45 - low_a) ** 2 + (high_b - 0.15) ** 2), 0.3 + sqrt((high_a - 0.45) ** 2 + (0.15 - low_b) ** 2))
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-5)
