"""Limits of a difference between two arms on the units that both have: over rollouts or items, over seeds, over new conditions.

Conditions, one seed: the two stratified Wilson intervals combined (MOVER), the conditions being the same for both arms.
Items: Student's t on the differences of the shared items. Seeds: Student's t on the seeds' differences (paired when both arms
have the same seeds, else Welch), for items with the items' part added (`summed_limits`), never narrower than without seeds.
An arm without seeds (an untrained model) brings the noise of its rollouts.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from msm_bench.analysis.cells import Cell, design_of, make_cell
from msm_bench.analysis.intervals import (
    CONFIDENCE,
    Floats,
    Limits,
    combined_df,
    difference_limits,
    hull,
    paired_limits,
    ratio_limits,
    skewed_limits,
    summed_limits,
    t_limits,
)
from msm_bench.analysis.rates import has_seeds, rollout_limits, seeds_limits, shared_noise, within_variance


@dataclass(frozen=True)
class Side:
    """Two arms on one group, cut to the units that both have scored, and what part of each whole cell is unscored."""

    a: Cell
    b: Cell
    unscored: tuple[float, float]

    @property
    def difference(self) -> float:
        """a - b."""
        return self.a.estimate - self.b.estimate


def make_side(rows: pd.DataFrame, arms: tuple[str, str], key: str) -> Side | None:
    """The arms' cells from rows of one task, key and group; None if they share too few units to say anything."""
    parts = [rows[rows["arm"] == arm] for arm in arms]
    if any(part.empty for part in parts):
        return None
    design = design_of(rows)
    a, b = (make_cell(part, design, key) for part in parts)
    units = sorted(set(a.scored_units()) & set(b.scored_units()))
    if not units:
        return None
    side = Side(a.only(units), b.only(units), (a.unscored_share, b.unscored_share))
    return side if len(units) > 1 or not by_items(side) else None


def by_items(side: Side) -> bool:
    return side.a.design == "items" or math.isnan(within_variance(side.a) + within_variance(side.b))


def paired_rollout_limits(side: Side) -> Limits:
    """Limits of a - b that leave seeds out."""
    a, b = side.a, side.b
    if not by_items(side):
        return difference_limits(a.estimate, rollout_limits(a), b.estimate, rollout_limits(b))
    paired = a.rates - b.rates
    if (a.low, a.high) == (0.0, 1.0):
        return paired_limits(paired)
    return t_limits(float(paired.mean()), float(paired.std(ddof=1)) / math.sqrt(len(paired)), len(paired) - 1)


def combined_limits(limits: list[Limits], values: list[float]) -> Limits:
    """Limits of one difference, or of the first minus the second."""
    return limits[0] if len(limits) == 1 else difference_limits(values[0], limits[0], values[1], limits[1])


def limits_with_seeds(sides: list[Side], difference: float, plain: Limits) -> tuple[Limits, str, int]:
    """The limits to report, their name, and the seeds that they speak for."""
    arms = [[side.a for side in sides], [side.b for side in sides]]
    means = [_seed_statistic(cells) for cells in arms]
    name = "items" if by_items(sides[0]) else "rollouts (fixed conditions, Wilson)"
    counts = [len(values) for values in means]
    if max(counts) < 2 or any(np.isnan(values).any() for values in means):
        return plain, "items (paired, t)" if name == "items" else name, 1
    same = all(a.seeds == b.seeds for a, b in ((side.a, side.b) for side in sides)) and counts[0] == counts[1]
    parts: list[tuple[float, float]] = []
    if same:
        paired = means[0] - means[1]
        parts.append((float(paired.var(ddof=1)) / len(paired), len(paired) - 1))
    else:
        for values, cells in zip(means, arms, strict=True):
            if len(values) > 1:
                parts.append((float(values.var(ddof=1)) / len(values), len(values) - 1))
            elif name != "items":
                parts.append((sum(within_variance(cell) for cell in cells), math.inf))
    total = sum(variance for variance, _ in parts)
    over_seeds = (total, combined_df(parts))
    limits = t_limits(difference, math.sqrt(total), over_seeds[1])
    if name == "items":
        limits = summed_limits(difference, [over_seeds, *(_items_part(side, same) for side in sides)])
    over = "seeds and items" if name == "items" else "seeds and rollouts"
    kind = f"{over} ({'paired' if same else 'Welch'}, t)" + ("" if min(counts) > 1 else "; one arm has 1 seed")
    return hull(limits, plain), kind, min(c for c in counts if c > 1)


def _items_part(side: Side, same: bool) -> tuple[float, float]:
    """Variance of the difference from drawing items, less what the seeds' spread holds of it already; degrees of freedom."""
    gaps = side.a.rates - side.b.rates
    a, b = (cell.total / cell.n.clip(1) for cell in (side.a, side.b))
    if same:
        noise = shared_noise(a - b, np.minimum(side.a.n, side.b.n))
    else:
        noise = shared_noise(a, side.a.n) + shared_noise(b, side.b.n)
    return max(0.0, float(gaps.var(ddof=1)) / len(gaps) - noise), len(gaps) - 1.0


def _seed_statistic(cells: list[Cell]) -> Floats:
    """By seed: the arm's mean on the first group, minus that on the second where there is one."""
    first = cells[0].seed_means
    if len(cells) == 1:
        return first
    if cells[0].seeds != cells[1].seeds:
        return np.array([cells[0].estimate - cells[1].estimate])
    return first - cells[1].seed_means


def new_unit_limits(side: Side) -> Limits | None:
    """Limits over new conditions, for conditions of which there are two or more."""
    a, b = side.a, side.b
    if by_items(side) or len(a.units) < 2:
        return None
    gaps = a.rates - b.rates
    variance = max(float(gaps.var(ddof=1)) / len(gaps), within_variance(a) + within_variance(b))
    return (
        hull(skewed_limits(gaps, math.sqrt(variance)), paired_rollout_limits(side))
        if variance > 0
        else paired_rollout_limits(side)
    )


def ratio_with_limits(side: Side) -> tuple[float, float, float]:
    """a / b and its limits; NaN where b is 0 or the key is no rate."""
    a, b = side.a, side.b
    if b.estimate <= 0 or (a.low, a.high) != (0.0, 1.0):
        return math.nan, math.nan, math.nan
    of = [seeds_limits(cell) if has_seeds(cell) else rollout_limits(cell) for cell in (a, b)]
    low, high = ratio_limits(a.estimate, of[0], b.estimate, of[1])(CONFIDENCE)
    return a.estimate / b.estimate, low, high if math.isfinite(high) else math.nan
