"""Agreement of two judges and the combination of a cheap with a strong one."""

import math
from pathlib import Path

import numpy as np
import pytest
from log_makers import CONDITIONS, agentic_score, sample, write
from ppi_py import ppi_mean_ci, ppi_mean_pointestimate
from sklearn.metrics import cohen_kappa_score

from msm_bench.analysis.agreement import agreement, alpha, kappa
from msm_bench.analysis.ppi import two_tier, two_tier_logs
from msm_bench.errors import RequestError


def judged(path: Path, verdicts: np.ndarray, judge: str, arm: str = "a") -> Path:
    """One log; verdicts of shape (conditions, epochs), NaN unscored."""
    samples = []
    for name, row in zip(CONDITIONS, verdicts, strict=True):
        facts = dict(zip(("scenario", "goal"), name.split("/"), strict=True))
        for epoch, value in enumerate(row, start=1):
            samples.append(
                sample(
                    name, epoch, agentic_score(float(value), outcome="not_judged", judge=judge), facts, "msm_bench/misalignment"
                )
            )
    return write(path, samples, arm=arm)


def judges(n: int = 600, right: float = 0.9, part: float = 0.25, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cheap verdicts, strong verdicts, and which the strong judge was asked about."""
    rng = np.random.default_rng(seed)
    strong = rng.binomial(1, 0.3, n).astype(float)
    cheap = np.where(rng.random(n) < right, strong, 1 - strong)
    asked = np.zeros(n, dtype=bool)
    asked[rng.choice(n, round(part * n), replace=False)] = True
    return cheap, strong, asked


def test_kappa_by_hand() -> None:
    """20 and 15 agreed, 5 and 10 not: agreement .7, by chance .5, kappa .4 (Cohen's own kind of table)."""
    a = [1] * 25 + [0] * 25
    b = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert kappa(a, b) == pytest.approx(0.4) == cohen_kappa_score(a, b)
    assert math.isnan(kappa([1, 1], [1, 1]))


def test_alpha_by_hand() -> None:
    """Krippendorff's own worked example of two observers and ten units: alpha .095."""
    assert alpha([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]) == pytest.approx(0.095, abs=5e-4)


def test_alpha_of_ratings_minds_how_far_they_are_apart() -> None:
    a, near, far = [2, 5, 8, 9, 3], [3, 5, 8, 9, 3], [9, 5, 8, 9, 3]
    assert alpha(a, near, "interval") > alpha(a, far, "interval")
    assert alpha(a, near) == pytest.approx(alpha(a, far), abs=0.1)


def test_two_logs_of_the_same_transcripts_are_matched(tmp_path: Path) -> None:
    first = np.array([[1, 1, 0, 0, 1]] * 3 + [[0, 0, 0, 1, 1]] * 3, dtype=float)
    second = first.copy()
    second[0, 0], second[1, 2], second[2, 4] = 0, 1, math.nan
    found = agreement(judged(tmp_path / "a.eval", first, "judge/a"), judged(tmp_path / "b.eval", second, "judge/b"))
    kept = ~np.isnan(second)
    assert (found.n, found.only_a, found.only_b) == (29, 1, 0) and (found.a, found.b) == ("judge/a", "judge/b")
    assert found.kappa == pytest.approx(cohen_kappa_score(first[kept], second[kept])) and found.agreement == pytest.approx(
        27 / 29
    )
    assert found.low is not None and found.high is not None and found.low < found.kappa < found.high  # type: ignore[operator]
    assert sum(found.table.values()) == 29 and found.table["1,0"] == 1


def test_what_cannot_be_matched_is_said(tmp_path: Path) -> None:
    verdicts = np.ones((len(CONDITIONS), 2))
    path = judged(tmp_path / "a.eval", verdicts, "judge/a")
    with pytest.raises(RequestError, match="hold 1 scorers for 'decided', not two"):
        agreement(path)
    with pytest.raises(RequestError, match="no score for 'rating'"):
        agreement(path, path, key="rating")
    with pytest.raises(RequestError, match="No transcript has 'decided' from both"):
        agreement(path, judged(tmp_path / "b.eval", verdicts, "judge/b", arm="other"))


@pytest.mark.parametrize("right", [0.95, 0.8, 0.5])
def test_the_combination_is_that_of_ppi_python(right: float) -> None:
    cheap, strong, asked = judges(right=right)
    ours = two_tier(cheap.tolist(), np.where(asked, strong, math.nan).tolist())
    parts = (strong[asked], cheap[asked], cheap[~asked])
    assert ours.estimate == pytest.approx(float(np.squeeze(ppi_mean_pointestimate(*parts, lam=ours.weight))))
    low, high = ppi_mean_ci(*parts, alpha=0.05, lam=ours.weight)
    assert (ours.low, ours.high) == pytest.approx((float(np.squeeze(low)), float(np.squeeze(high))), abs=1e-3)
    own_low, own_high = ppi_mean_ci(*parts, alpha=0.05)
    assert ours.high - ours.low == pytest.approx(float(np.squeeze(own_high - own_low)), rel=0.01)


def test_a_good_cheap_judge_narrows_and_a_useless_one_does_no_harm() -> None:
    found = {}
    for right in (0.97, 0.5):
        cheap, strong, asked = judges(n=4000, right=right, part=0.1)
        found[right] = two_tier(cheap.tolist(), np.where(asked, strong, math.nan).tolist(), prices=(0.001, 0.04))
    assert found[0.97].weight > 0.8 and found[0.97].narrower is not None and found[0.97].narrower < 0.55
    assert found[0.5].weight < 0.1 and found[0.5].narrower == pytest.approx(1, abs=0.01)
    assert found[0.97].saved == pytest.approx(0.9) and found[0.97].saved_dollars == pytest.approx(3600 * 0.04 - 4000 * 0.001)
    assert found[0.97].wider is not None and found[0.97].wider > 1 and found[0.5].p_of_bias < 0.001


def test_judges_that_say_one_thing_throughout_still_leave_a_width() -> None:
    found = two_tier([0.0] * 50, [0.0] * 10 + [math.nan] * 40)
    assert found.estimate == 0 and found.high > 0.1


def test_logs_of_two_judges_give_a_rate_for_each_arm(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    strong = rng.binomial(1, 0.5, (len(CONDITIONS), 12)).astype(float)
    cheap = np.where(rng.random(strong.shape) < 0.9, strong, 1 - strong)
    part = strong.copy()
    part[:, 4:] = math.nan
    found = two_tier_logs(judged(tmp_path / "c.eval", cheap, "cheap"), judged(tmp_path / "s.eval", part, "strong"))["a"]
    assert (found.n_strong, found.n_cheap) == (24, 72) and found.saved == pytest.approx(2 / 3)
    assert found.strong_alone == pytest.approx(strong[:, :4].mean()) and found.low < found.estimate < found.high


def test_too_few_judgements_are_refused() -> None:
    with pytest.raises(RequestError, match="two transcripts with and two without"):
        two_tier([0, 1, 1], [0, math.nan, math.nan])
    with pytest.raises(RequestError, match="must have judged every transcript"):
        two_tier([0, math.nan], [0, 1])
