"""Contrasts: what one arm did more than another, paired by condition or item, with p-values adjusted over the declared family.

How the limits come about is in `pairing`. Every p-value is that of its interval, so the two never contradict each other.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import pandas as pd
from pydantic import BaseModel, ConfigDict

from msm_bench.analysis.cells import base_key
from msm_bench.analysis.estimates import MISALIGNMENT_KEYS, UNSCORED_LIMIT, hardly_acting, known, with_conditional
from msm_bench.analysis.intervals import CONFIDENCE, equivalence_p, holm, p_value
from msm_bench.analysis.pairing import (
    Side,
    combined_limits,
    limits_with_seeds,
    make_side,
    new_unit_limits,
    paired_rollout_limits,
    ratio_with_limits,
)
from msm_bench.analysis.syntax import Contrast
from msm_bench.errors import RequestError, UnknownNameError

SIGNIFICANCE = 0.05
PRIMARY = ("decided", "aligned", "rating")
"""The keys that a study is about; their contrasts are one family for Holm's adjustment; every other key is its own."""

HIGHER_IS_BETTER = frozenset({"aligned", "margin", "rating"})


class ContrastResult(BaseModel):
    """One contrast on one task and key. Numbers that cannot be had are None.

    `difference` is a - b (for `on G minus H`: that on G minus that on H); `pairs` the shared conditions or items, `seeds` the
    seeds that the interval speaks for. `new_low` to `new_p`: the same over new conditions. `p_adjusted` is Holm's over the
    declared contrasts (see `PRIMARY`). `equivalence_p` is that of TOST at `margin`. `blocked` is why no arm may be called
    better; `verdict` says in words what may be said; `labels` what was measured differently and compared all the same.
    """

    model_config = ConfigDict(frozen=True)

    a: str
    b: str
    task: str
    key: str
    group: str
    model: str | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None = None
    p_adjusted: float | None = None
    interval: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    new_low: float | None = None
    new_high: float | None = None
    new_p: float | None = None
    margin: float | None = None
    equivalence_p: float | None = None
    pairs: int
    seeds: int
    blocked: str | None
    verdict: str
    labels: tuple[str, ...] = ()


def contrast_all(table: pd.DataFrame, wanted: Sequence[Contrast], keys: Sequence[str]) -> list[ContrastResult]:
    """Every wanted contrast on every task and every one of `keys` that both arms have.

    Raises:
        RequestError: An arm or model that the table does not hold, or arms that share no scored condition of the group.
    """
    idle = hardly_acting(table)
    table = with_conditional(table) if any(key != base_key(key) for key in keys) else table
    results: list[ContrastResult] = []
    for contrast in wanted:
        rows = table if contrast.within is None else _within(table, contrast.within)
        arms = sorted({str(arm) for arm in rows["arm"].astype(object).unique()})
        for arm in (contrast.a, contrast.b):
            if arm not in arms:
                raise UnknownNameError("arm", arm, arms)
        mine = rows[rows["arm"].isin([contrast.a, contrast.b]) & rows["key"].isin(list(keys))]
        parts = [part for one in by_model(mine, contrast) for part in one.groupby(["task", "key"], observed=True)]
        found = [result for (task, key), part in parts if (result := _contrast(part, str(task), str(key), contrast, idle))]
        if not found:
            raise RequestError(
                f"'{contrast.a}' and '{contrast.b}' share no scored condition of group '{contrast.group}'.",
                f"Contrast arms that ran the same task; groups here: {', '.join(_group_names(mine)) or 'none'}.",
            )
        results += found
    return _adjusted(results)


def _within(table: pd.DataFrame, model: str) -> pd.DataFrame:
    matching = matching_models(table["base"], model)
    if not matching:
        raise UnknownNameError("model", model, sorted(map(str, table["base"].astype(object).unique())))
    return table[table["base"].isin(matching)]


def matching_models(bases: pd.Series, model: str) -> list[str]:
    """The base models that a contrast's `within MODEL` means: by whole name, or by what stands after the last slash."""
    found = sorted(map(str, bases.astype(object).unique()))
    return [base for base in found if model.lower() in (base.lower(), base.lower().split("/")[-1])]


def by_model(rows: pd.DataFrame, contrast: Contrast) -> list[pd.DataFrame]:
    """The rows by base model where both arms were made from several of the same; else all in one."""
    bases = [set(rows.loc[rows["arm"] == arm, "base"].astype(str)) for arm in (contrast.a, contrast.b)]
    shared = sorted(bases[0] & bases[1])
    return [rows[rows["base"] == base] for base in shared] if len(shared) > 1 else [rows]


def _group_names(rows: pd.DataFrame) -> list[str]:
    return sorted({str(name) for column in ("group", "subgroup") for name in rows[column].astype(object).unique() if name})


def _contrast(
    rows: pd.DataFrame, task: str, key: str, contrast: Contrast, idle: Collection[tuple[str, str, str]]
) -> ContrastResult | None:
    """One contrast on one task and key; None when the arms share nothing there."""
    models = sorted(rows["base"].astype(str).unique())
    arms = (contrast.a, contrast.b)
    scorers = [set(rows.loc[rows["arm"] == arm, "scorer"].astype(str)) for arm in arms]
    if shared := sorted(scorers[0] & scorers[1]):
        rows = rows[rows["scorer"] == shared[0]]
    sides = []
    for group in (contrast.on, contrast.minus) if contrast.minus else (contrast.on,):
        inside = rows if group is None else rows[(rows["group"] == group) | (rows["subgroup"] == group)]
        side = make_side(inside, arms, base_key(key))
        if side is None:
            return None
        sides.append(side)
    values = [side.difference for side in sides]
    difference = values[0] - (values[1] if len(values) > 1 else 0.0)
    plain = combined_limits([paired_rollout_limits(side) for side in sides], values)
    limits, interval, seeds = limits_with_seeds(sides, difference, plain)
    low, high = limits(CONFIDENCE)
    new = new_unit_limits(sides[0]) if len(sides) == 1 else None
    new_low, new_high = new(CONFIDENCE) if new else (math.nan, math.nan)
    ratio, ratio_low, ratio_high = ratio_with_limits(sides[0]) if len(sides) == 1 else (math.nan, math.nan, math.nan)
    return ContrastResult(
        a=contrast.a,
        b=contrast.b,
        task=task,
        key=key,
        group=contrast.group,
        model=contrast.within or (models[0] if len(models) == 1 else None),
        difference=difference,
        low=low,
        high=high,
        p=p_value(limits, difference),
        interval=interval,
        ratio=known(ratio),
        ratio_low=known(ratio_low),
        ratio_high=known(ratio_high),
        new_low=known(new_low),
        new_high=known(new_high),
        new_p=p_value(new, difference) if new else None,
        margin=contrast.margin,
        equivalence_p=equivalence_p(limits, difference, contrast.margin) if contrast.margin else None,
        pairs=sum(len(side.a.units) for side in sides),
        seeds=seeds,
        blocked=_blocked(sides, difference, key, contrast, {arm for arm, base, of in idle if of == task and base in models}),
        verdict="",
    )


def _blocked(sides: list[Side], difference: float, key: str, contrast: Contrast, idle: Collection[str]) -> str | None:
    """Why no arm may be called better; None when one may."""
    if base_key(key) in MISALIGNMENT_KEYS and (slow := [arm for arm in (contrast.a, contrast.b) if arm in idle]):
        return f"{' and '.join(slow)} hardly act{'s' if len(slow) == 1 else ''}"
    if len(sides) == 1:
        better = 0 if (difference > 0) == (base_key(key) in HIGHER_IS_BETTER) else 1
        if sides[0].unscored[better] > UNSCORED_LIMIT:
            return f"more than {UNSCORED_LIMIT:.0%} of {(contrast.a, contrast.b)[better]} is unscored"
    elif any(share > UNSCORED_LIMIT for side in sides for share in side.unscored):
        return f"more than {UNSCORED_LIMIT:.0%} of one of its cells is unscored"
    return None


def _adjusted(results: list[ContrastResult]) -> list[ContrastResult]:
    """The results with Holm's p-values and their verdicts."""
    families: dict[str, list[int]] = defaultdict(list)
    for index, result in enumerate(results):
        families["primary" if result.key in PRIMARY else result.key].append(index)
    adjusted = [math.nan] * len(results)
    for indices in families.values():
        for index, p in zip(indices, holm([_number(results[i].p) for i in indices]), strict=True):
            adjusted[index] = p
    return [
        result.model_copy(update={"p_adjusted": known(p), "verdict": _verdict(result, p)})
        for result, p in zip(results, adjusted, strict=True)
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _verdict(result: ContrastResult, p_adjusted: float) -> str:
    """What may be said. A difference that is not shown is not called equal: that takes a margin and its own test."""
    if result.margin is not None and result.equivalence_p is not None:
        shown = result.equivalence_p < SIGNIFICANCE
        return f"equivalent within {result.margin:g}" if shown else f"not shown equivalent within {result.margin:g}"
    if result.blocked:
        return f"no verdict: {result.blocked}"
    if p_adjusted >= SIGNIFICANCE or result.difference is None:
        return "no difference shown"
    higher = result.difference > 0
    if " minus " in result.group:
        return "interaction above 0" if higher else "interaction below 0"
    if base_key(result.key) in HIGHER_IS_BETTER:
        return f"{result.a if higher else result.b} is better"
    if base_key(result.key) in MISALIGNMENT_KEYS:
        return f"{result.b if higher else result.a} is better"
    return f"{result.a} is {'higher' if higher else 'lower'}"
