"""How far two judgements of the same transcripts agree: agreement, Cohen's kappa, Krippendorff's alpha.

Kappa is scikit-learn's (Cohen 1960), alpha is Inspect's (Krippendorff 2004). Kappa's interval comes from drawing conditions
again with all their rollouts, because rollouts of one condition resemble each other. The two judgements are a log and its
scored copy, or one log with two scorers; transcripts are matched by arm, seed, condition, epoch and the sample's own id.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from inspect_ai.scorer import SampleScore, Score, krippendorff_alpha
from pydantic import BaseModel, ConfigDict

from msm_bench.analysis.table import read_table
from msm_bench.errors import RequestError

BOOTSTRAP_DRAWS = 1000
_SEED = 20260604
# What makes a row of one judgement and a row of the other the same transcript.
_SAME = ("task", "arm", "base", "seed", "condition", "epoch", "sample")


class Agreement(BaseModel):
    """Agreement of judgement `a` and judgement `b` on one key.

    `n` transcripts were judged by both; `only_a` and `only_b` by one of them alone. `low` and `high` are the 95 % interval of
    kappa (None with one condition). `table` counts (a, b) pairs of values. Kappa is None where both gave one value throughout.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    a: str
    b: str
    n: int
    only_a: int
    only_b: int
    agreement: float | None
    kappa: float | None
    low: float | None
    high: float | None
    alpha: float | None
    rate_a: float | None
    rate_b: float | None
    table: dict[str, int]


def agreement(
    a: pd.DataFrame | Sequence[str | Path] | str | Path,
    b: pd.DataFrame | Sequence[str | Path] | str | Path | None = None,
    key: str = "decided",
    scorers: tuple[str, str] | None = None,
) -> Agreement:
    """Compares two judgements of the same transcripts.

    Args:
        a: Logs of the first judgement, or their table.
        b: Logs of the second; None when `a` holds both, as two scorers.
        key: The score key.
        scorers: The two scorers' names in `a` and `b`; needed when a log holds several for this key.

    Raises:
        RequestError: A log does not hold the key, which scorer is meant is unclear, or no transcript was judged twice.
    """
    first = a if isinstance(a, pd.DataFrame) else read_table(a)
    second = first if b is None else b if isinstance(b, pd.DataFrame) else read_table(b)
    if b is None and scorers is None:
        found = sorted(set(first.loc[first["key"] == key, "scorer"].astype(str)))
        if len(found) != 2:
            raise RequestError(
                f"The logs hold {len(found)} scorers for '{key}', not two.", "Name a second folder, or two scorers."
            )
        scorers = (found[0], found[1])
    names = scorers or (None, None)
    pairs = matched(first, second, key, names)
    both = pairs.dropna(subset=["value_a", "value_b"])
    if both.empty:
        raise RequestError(f"No transcript has '{key}' from both judgements.", "Name two judgements of the same samples.")
    values_a, values_b = both["value_a"].to_numpy(float), both["value_b"].to_numpy(float)
    low, high = _interval(values_a, values_b, both["condition"].to_numpy())
    counts = both.groupby(["value_a", "value_b"]).size()
    return Agreement(
        key=key,
        a=_names(both["judge_a"]) or names[0] or "a",
        b=_names(both["judge_b"]) or names[1] or "b",
        n=len(both),
        only_a=int((pairs["value_a"].notna() & pairs["value_b"].isna()).sum()),
        only_b=int((pairs["value_b"].notna() & pairs["value_a"].isna()).sum()),
        agreement=float((values_a == values_b).mean()),
        kappa=_none(kappa(values_a, values_b)),
        low=_none(low),
        high=_none(high),
        alpha=_none(alpha(values_a, values_b, "interval" if key == "rating" else "nominal")),
        rate_a=float(values_a.mean()),
        rate_b=float(values_b.mean()),
        table={f"{x:g},{y:g}": int(count) for (x, y), count in counts.items()},
    )


def matched(a: pd.DataFrame, b: pd.DataFrame, key: str, scorers: tuple[str | None, str | None] = (None, None)) -> pd.DataFrame:
    """One row a transcript of two tables, with `value_a`, `value_b`, `judge_a` and `judge_b`; NaN where one did not judge it.

    Raises:
        RequestError: A table holds no score for the key, or several and no scorer is named.
    """
    sides = [_judged(table, key, scorer) for table, scorer in zip((a, b), scorers, strict=True)]
    return pd.merge(*sides, on=list(_SAME), how="outer", suffixes=("_a", "_b"))


def kappa(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Cohen's kappa of two lists of labels; NaN where both hold one and the same label throughout."""
    from sklearn.metrics import cohen_kappa_score

    if len(set(map(float, a)) | set(map(float, b))) < 2:
        return math.nan
    return float(cohen_kappa_score([f"{x:g}" for x in a], [f"{x:g}" for x in b]))


def alpha(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, level: Any = "nominal") -> float:
    """Krippendorff's alpha of two raters; `level` is nominal, ordinal or interval."""
    # As labels, since Inspect warns of numbers that are read as names.
    label = (lambda x: f"{x:g}") if level == "nominal" else float
    units = [SampleScore(score=Score(value=[label(x), label(y)])) for x, y in zip(a, b, strict=True)]
    return float(krippendorff_alpha(level)(units))  # type: ignore[arg-type]


def _judged(table: pd.DataFrame, key: str, scorer: str | None) -> pd.DataFrame:
    rows = table[table["key"] == key]
    rows = rows if scorer is None else rows[rows["scorer"] == scorer]
    names = sorted(set(rows["scorer"].astype(str)))
    if len(names) != 1:
        found = f"scorers {', '.join(names)}" if names else "no score"
        raise RequestError(f"The logs hold {found} for '{key}'.", "Name one scorer for each judgement.")
    return rows[[*_SAME, "value", "judge"]].astype({name: object for name in (*_SAME, "judge")})


def _interval(a: np.ndarray, b: np.ndarray, conditions: np.ndarray) -> tuple[float, float]:
    """Percentile interval of kappa over drawn conditions."""
    codes, names = pd.factorize(conditions)
    labels = np.unique(np.concatenate([a, b]))
    if len(names) < 2 or len(labels) < 2:
        return math.nan, math.nan
    size = len(labels)
    cell = np.searchsorted(labels, a) * size + np.searchsorted(labels, b)
    counts = np.bincount(codes * size * size + cell, minlength=len(names) * size * size).reshape(len(names), size, size)
    drawn = np.random.default_rng(_SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), size=BOOTSTRAP_DRAWS)
    tables = np.tensordot(drawn, counts, axes=1).astype(float)
    tables /= tables.sum(axis=(1, 2), keepdims=True)
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    kappas = (observed - expected)[expected < 1] / (1 - expected[expected < 1])
    low, high = np.quantile(kappas, [0.025, 0.975]) if len(kappas) else (math.nan, math.nan)
    return float(low), float(high)


def _names(judges: pd.Series) -> str:
    """The judges' models; one scenario's prompt differs from another's, so the hashes are left out."""
    return ", ".join(sorted({str(judge).split(" ")[0] for judge in judges if judge}))


def _none(number: float) -> float | None:
    return None if math.isnan(number) else number
