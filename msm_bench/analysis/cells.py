"""The sufficient statistics of one arm on one task, key and group: counts, sums and squares by seed and unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from msm_bench.analysis.intervals import Floats

Design = Literal["conditions", "items"]

RANGES = {"rating": (1.0, 10.0), "margin": (-math.inf, math.inf)}
"""Lowest and highest value of keys that are not rates; every other key lies between 0 and 1."""

GIVEN_ACTED = "_given_acted"
"""Ends the key of a rate among the rollouts that took a well-formed action."""

_CONDITION_TASKS = frozenset({"agentic_misalignment"})
_ROLLOUTS_OF_A_CONDITION = 3


@dataclass(frozen=True, eq=False)
class Cell:
    """Scored values of one arm, task, key and group.

    Arrays have shape (seeds, units): `n` scored rollouts, `total` and `square` their sum and sum of squares, `planned` all
    rollouts. `design` is "conditions" when a unit is a fixed condition that is sampled again and again (inference is over its
    rollouts), "items" when units stand for a population of items (inference is over items; an item pair asked in both orders
    is one unit).
    """

    n: Floats
    total: Floats
    square: Floats
    planned: Floats
    units: tuple[str, ...]
    seeds: tuple[str, ...]
    design: Design
    low: float = 0.0
    high: float = 1.0

    @property
    def rates(self) -> Floats:
        """Mean value by unit, over seeds that each count alike; NaN for a unit without a scored rollout."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return _mean(self.total / self.n, axis=0)

    @property
    def seed_means(self) -> Floats:
        """Mean over units by seed, of the units that every seed has."""
        everywhere = (self.n > 0).all(axis=0)
        if not everywhere.any():
            return np.full(len(self.seeds), np.nan)
        return np.asarray((self.total[:, everywhere] / self.n[:, everywhere]).mean(axis=1), dtype=float)

    @property
    def estimate(self) -> float:
        """The mean of the units' means; NaN when nothing is scored."""
        return float(_mean(self.rates))

    @property
    def binary(self) -> bool:
        """Whether every value is 0 or 1."""
        return bool((self.low, self.high) == (0.0, 1.0) and np.array_equal(self.total, self.square))

    @property
    def unscored_share(self) -> float:
        """The part of all rollouts that has no value."""
        return 1 - float(self.n.sum()) / float(self.planned.sum())

    def bounds(self) -> tuple[float, float]:
        """The estimate if every unscored rollout had the lowest possible value, and the highest; NaN where there is none."""
        if math.isinf(self.low) or math.isinf(self.high):
            return math.nan, math.nan
        missing = self.planned - self.n
        with np.errstate(invalid="ignore", divide="ignore"):
            lowest = _mean((self.total + missing * self.low) / self.planned, axis=0)
            highest = _mean((self.total + missing * self.high) / self.planned, axis=0)
        return float(_mean(lowest)), float(_mean(highest))

    def only(self, units: Sequence[str]) -> "Cell":
        """The same cell with these units only, in this order."""
        place = {unit: index for index, unit in enumerate(self.units)}
        keep = [place[unit] for unit in units]
        cut = {name: getattr(self, name)[:, keep] for name in ("n", "total", "square", "planned")}
        return replace(self, units=tuple(units), **cut)

    def scored_units(self) -> tuple[str, ...]:
        """Units with at least one scored rollout."""
        return tuple(unit for unit, n in zip(self.units, self.n.sum(axis=0), strict=True) if n > 0)


def _mean(values: Floats, axis: int | None = None) -> Floats:
    """Mean without the NaNs; NaN (and no warning) where there is nothing else."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis), dtype=float)


def make_cell(rows: pd.DataFrame, design: Design, key: str) -> Cell:
    """The cell of the given rows, which must be of one arm, task and key."""
    units, unit_names = pd.factorize(rows["unit"].astype(object), sort=True)
    seeds, seed_names = pd.factorize(rows["seed"].astype(object), sort=True)
    values = rows["value"].to_numpy(dtype=float)
    scored = ~np.isnan(values)
    shape = (len(seed_names), len(unit_names))
    where = seeds * shape[1] + units
    filled = np.where(scored, values, 0.0)

    def sums(weights: Floats) -> Floats:
        return np.bincount(where, weights=weights, minlength=shape[0] * shape[1]).astype(float).reshape(shape)

    low, high = RANGES.get(key, (0.0, 1.0))
    return Cell(
        n=sums(scored.astype(float)),
        total=sums(filled),
        square=sums(filled**2),
        planned=sums(np.ones(len(values))),
        units=tuple(map(str, unit_names)),
        seeds=tuple(map(str, seed_names)),
        design=design,
        low=low,
        high=high,
    )


def base_key(key: str) -> str:
    """The key without the suffix of the conditional rates."""
    return key.removesuffix(GIVEN_ACTED)


def design_of(rows: pd.DataFrame) -> Design:
    """Conditions or items, from the rows of one task.

    Agentic misalignment has conditions and pairs asked in two orders are items, however often each was sampled. Any other task
    has conditions when its samples were rolled out three times or more on average, for one arm, seed and key.
    """
    if str(rows["task"].iloc[0]) in _CONDITION_TASKS:
        return "conditions"
    if (rows["unit"].astype(object) != rows["condition"].astype(object)).any():
        return "items"
    repeats = rows.groupby(["arm", "seed", "scorer", "key", "unit"], observed=True).size().mean()
    return "conditions" if not math.isnan(repeats) and repeats >= _ROLLOUTS_OF_A_CONDITION else "items"
