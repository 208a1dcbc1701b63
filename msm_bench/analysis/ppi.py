"""Two-tier judging: a cheap judge on every transcript, a strong one on a random part, combined into one honest rate.

Prediction-powered inference for a mean (Angelopoulos et al. 2023, arXiv 2301.09633) with the tuned weight of PPI++
(Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453): mean(strong) + lambda (mean(cheap, all others) - mean(cheap, the same
part)). It is right whatever the cheap judge is worth; a good one makes the interval narrower, a useless one gets weight 0.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from msm_bench.analysis.agreement import matched
from msm_bench.analysis.intervals import CONFIDENCE, Floats, p_value, t_limits, wilson_limits
from msm_bench.analysis.table import read_table
from msm_bench.errors import RequestError


class TwoTier(BaseModel):
    """The combined rate, and what it saved and cost.

    `weight` is lambda, between 0 and 1. `strong_alone` and `cheap_alone` are the two plain means; `p_of_bias` tests whether the
    judges' rates differ at all. `narrower` is the width over that of the strong judge on its part alone, `wider` the width over
    what the strong judge on everything would have given. `saved` is the part of the strong judge's calls not made,
    `saved_dollars` that in money less what the cheap judge cost (None without prices).
    """

    model_config = ConfigDict(frozen=True)

    estimate: float
    se: float
    low: float
    high: float
    p_of_bias: float
    weight: float
    n_strong: int
    n_cheap: int
    strong_alone: float
    cheap_alone: float
    narrower: float | None
    wider: float | None
    saved: float
    saved_dollars: float | None


def two_tier(
    cheap: Sequence[float],
    strong: Sequence[float],
    strata: Sequence[str] | None = None,
    prices: tuple[float, float] | None = None,
) -> TwoTier:
    """Combines two judges of the same transcripts.

    Args:
        cheap: The cheap judge's values, one a transcript.
        strong: The strong judge's, NaN where it was not asked.
        strata: The conditions of the transcripts. The rate is then the mean over conditions, each weighing alike; needs two
            strong and two other judgements in every condition, else conditions are pooled.
        prices: Dollars a call of the cheap and of the strong judge.

    Raises:
        RequestError: The lists do not match, the cheap judge left something out, or there are fewer than two judgements of a
            kind.
    """
    f, y = np.asarray(cheap, dtype=float), np.asarray(strong, dtype=float)
    if f.shape != y.shape or np.isnan(f).any():
        raise RequestError(
            "The cheap judge must have judged every transcript.", "Leave out what it could not judge, and say how many."
        )
    asked = ~np.isnan(y)
    if asked.sum() < 2 or (~asked).sum() < 2:
        raise RequestError(
            "Two-tier judging needs two transcripts with and two without the strong judge.", "Ask more or fewer."
        )
    names = np.zeros(len(f), dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    enough = all(min((asked & (names == s)).sum(), (~asked & (names == s)).sum()) >= 2 for s in np.unique(names))
    names = names if enough else np.zeros(len(f), dtype=int)
    weights = [(asked & (names == s), ~asked & (names == s)) for s in np.unique(names)]
    weight = _weight(f, y, weights)
    parts = [_stratum(f, y, a, o, weight) for a, o in weights]
    estimate, variance = (sum(part[i] for part in parts) / len(parts) ** (i + 1) for i in (0, 1))
    alone = [_stratum(f, y, a, o, 0.0) for a, o in weights]
    everything = sum(float(y[a].var(ddof=1)) / (a | o).sum() for a, o in weights) / len(weights) ** 2
    gap, gap_se = float((f - y)[asked].mean()), float((f - y)[asked].std(ddof=1)) / math.sqrt(int(asked.sum()))
    limits = t_limits(estimate, math.sqrt(variance))
    if variance == 0 and 0 <= estimate <= 1:
        # Both judges said one thing throughout: what the strong one alone could have missed.
        limits = wilson_limits(estimate, float(asked.sum()))
    low, high = limits(CONFIDENCE)
    alone_variance = sum(part[1] for part in alone) / len(alone) ** 2
    others = int((~asked).sum())
    return TwoTier(
        estimate=estimate,
        se=math.sqrt(variance),
        low=low,
        high=high,
        p_of_bias=p_value(t_limits(gap, gap_se), gap) if gap_se > 0 else float(gap == 0),
        weight=weight,
        n_strong=int(asked.sum()),
        n_cheap=len(f),
        strong_alone=sum(part[0] for part in alone) / len(alone),
        cheap_alone=float(np.mean([f[names == s].mean() for s in np.unique(names)])),
        narrower=math.sqrt(variance / alone_variance) if alone_variance > 0 else None,
        wider=math.sqrt(variance / everything) if everything > 0 else None,
        saved=others / len(f),
        saved_dollars=None if prices is None else others * prices[1] - len(f) * prices[0],
    )


def _weight(f: Floats, y: Floats, strata: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The lambda that makes the variance least, cut to [0, 1]: one for all strata, so that small ones do not tune noise."""
    above, below = 0.0, 0.0
    for asked, others in strata:
        n, rest = asked.sum(), others.sum()
        above += float(np.cov(y[asked], f[asked], ddof=1)[0, 1]) / n
        below += float(f[asked | others].var(ddof=1)) * (1 / n + 1 / rest)
    return min(1.0, max(0.0, above / below)) if below > 0 else 0.0


def _stratum(f: Floats, y: Floats, asked: np.ndarray, others: np.ndarray, weight: float) -> tuple[float, float]:
    """Estimate and variance of the mean in one stratum."""
    rest = f[others]
    estimate = float(y[asked].mean() + weight * (rest.mean() - f[asked].mean()))
    variance = (
        float((y[asked] - weight * f[asked]).var(ddof=1)) / asked.sum() + weight**2 * float(rest.var(ddof=1)) / others.sum()
    )
    return estimate, variance


def two_tier_logs(
    cheap: pd.DataFrame | Sequence[str | Path] | str | Path,
    strong: pd.DataFrame | Sequence[str | Path] | str | Path,
    key: str = "decided",
    prices: tuple[float, float] | None = None,
) -> dict[str, TwoTier]:
    """`two_tier` for every arm of two judgements of the same logs (or their tables), the second of which scored only a part.

    Transcripts that the cheap judge could not judge are left out of both; the rates are means over conditions, and an arm's
    seeds are taken together: the intervals speak for these checkpoints.

    Raises:
        RequestError: See `two_tier`; or the logs share no arm.
    """
    tables = [one if isinstance(one, pd.DataFrame) else read_table(one) for one in (cheap, strong)]
    pairs = matched(tables[0], tables[1], key)
    pairs = pairs[pairs["value_a"].notna()]
    found = {}
    for arm, rows in pairs.groupby("arm"):
        if rows["value_b"].notna().any():
            values = (rows["value_a"].astype(float).tolist(), rows["value_b"].astype(float).tolist())
            found[str(arm)] = two_tier(*values, strata=rows["condition"].tolist(), prices=prices)
    if not found:
        raise RequestError(f"No arm has '{key}' from both judges.", "Name two judgements of the same samples.")
    return found
