"""Limits of one cell's rate. Each docstring says which question it answers; `estimates` names it beside the number.

Sources: stratified sampling, Cochran (1977) ch. 5; clusters as the unit, Miller (2024, arXiv 2411.00640); two-level bootstrap
with the between-group part rescaled, Davison & Hinkley (1997) 3.8; Wilson on effective samples, see `intervals`.
"""

import math

import numpy as np

from msm_bench.analysis.cells import Cell
from msm_bench.analysis.intervals import (
    Floats,
    Limits,
    hull,
    quantile,
    skewed_limits,
    summed_limits,
    t_limits,
    wilson_limits,
    within,
)

BOOTSTRAP_DRAWS = 2000
_BOOTSTRAP_SEED = 20260527


def within_variance(cell: Cell) -> float:
    """Variance of the estimate from sampling rollouts, the conditions being fixed; NaN when single rollouts give no spread.

    0/1 values: each condition's rate is drawn towards the overall rate by one rollout, p~ = (x + p) / (n + 1), and the sum of
    p~(1 - p~)/n is scaled so that it has no bias when all conditions share one rate. So a condition with a rate of 0 or 1, or
    with a single rollout, still adds what it might vary. Other values: the sample variance within conditions over n.
    """
    used, weight = cell.n > 0, _weights(cell)
    n, total = np.where(used, cell.n, 1.0), np.where(used, cell.total, 0.0)
    if cell.binary:
        overall = cell.estimate
        drawn = (total + overall) / (n + 1)
        variance = drawn * (1 - drawn) / (1 - n / (n + 1) ** 2)
    else:
        if (cell.n[used] < 2).any():
            return math.nan
        variance = np.where(used, (cell.square - total**2 / n) / (n - 1).clip(1), 0.0)
    return float((weight**2 * variance / n).sum())


def _weights(cell: Cell) -> Floats:
    """What each (seed, unit) mean weighs in the estimate."""
    used = cell.n > 0
    return np.asarray(used / (used.sum(axis=0).clip(1) * used.any(axis=0).sum()), dtype=float)


def fixed_limits(cell: Cell) -> Limits:
    """For these conditions: what more rollouts of the same ones would give. Wilson on the effective number of rollouts."""
    rate, variance = cell.estimate, within_variance(cell)
    if not cell.binary:
        return t_limits(rate, math.sqrt(variance), max(1.0, float(cell.n.sum()) - len(cell.scored_units())))
    if 0 < rate < 1:
        return wilson_limits(rate, rate * (1 - rate) / variance)
    return wilson_limits(rate, 1 / float((_weights(cell) ** 2 / cell.n.clip(1)).sum()))


def unit_variance(cell: Cell) -> float:
    """Variance of the estimate from drawing units (new conditions, new items), each unit's mean being one observation.

    For conditions never below what the rollouts alone give.
    """
    rates = cell.rates[~np.isnan(cell.rates)]
    units = len(rates)
    if units < 2:
        return math.nan
    variance = float(rates.var(ddof=1)) / units
    if cell.design == "items":
        return variance
    from_rollouts = within_variance(cell)
    return variance if math.isnan(from_rollouts) else max(variance, from_rollouts)


def units_limits(cell: Cell) -> Limits:
    """For new conditions or items like these, each unit's mean being one observation.

    Items of rates: Wilson on the effective number of answers, that is of as many independent answers as would have this
    spread; it lies between the number of units and the number of answers. Anything else: Student's t on units - 1, bent by
    Hall for skewness. A rate of 0 or 1 in every condition: Wilson on the number of units.
    """
    rates = cell.rates[~np.isnan(cell.rates)]
    units, variance, estimate = len(rates), unit_variance(cell), cell.estimate
    is_rate = (cell.low, cell.high) == (0.0, 1.0)
    if is_rate and estimate in (0.0, 1.0):
        return wilson_limits(estimate, units, units - 1 if cell.design == "conditions" else math.inf)
    if is_rate and cell.design == "items":
        answers = max(float(cell.n.sum()), units)
        effective = answers if variance == 0 else estimate * (1 - estimate) / variance
        return wilson_limits(estimate, min(max(effective, units), answers))
    limits = within(skewed_limits(rates, math.sqrt(variance)) if variance > 0 else t_limits(estimate, 0.0), cell.low, cell.high)
    return hull(limits, fixed_limits(cell)) if cell.design == "conditions" and cell.binary else limits


def rollout_limits(cell: Cell) -> Limits:
    """The limits that leave seeds out: over rollouts for conditions, over items for items."""
    if cell.design == "items" or math.isnan(within_variance(cell)):
        return units_limits(cell)
    return fixed_limits(cell)


def seed_variance(cell: Cell) -> float:
    """Variance of the mean over seeds, from the spread of the seeds' means (it holds their rollouts' noise as well)."""
    return float(cell.seed_means.var(ddof=1)) / len(cell.seeds)


def shared_noise(values: Floats, n: Floats) -> float:
    """What the spread of seeds and the spread of items both hold: the variance of their mean from single answers alone.

    `values` has shape (seeds, units); units that lack a seed (`n` is 0) are left out. The residual mean square of the two-way
    table over its size; 0 where there is no table.
    """
    table = values[:, (n > 0).all(axis=0)]
    seeds, units = table.shape
    if seeds < 2 or units < 2:
        return 0.0
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float(np.square(rest).sum() / ((seeds - 1) * (units - 1)) / (seeds * units))


def has_seeds(cell: Cell) -> bool:
    """Whether there are two seeds or more that share a unit, so that their means have a spread that is theirs alone."""
    return len(cell.seeds) > 1 and not bool(np.isnan(cell.seed_means).any())


def seeds_limits(cell: Cell) -> Limits:
    """For new training seeds as well; needs two or more. Never narrower than the limits that leave seeds out.

    Conditions: a two-level bootstrap. Seeds are drawn with replacement from their means, spread so that the variance of the
    draws is the unbiased one, and each drawn seed's rollouts are drawn again. The draws give the shape, Student's t with
    seeds - 1 degrees of freedom the length, because the spread of two to five seeds is itself hardly known.
    Items: the seeds' and the items' variances are added (`summed_limits`), less what both hold of single answers' noise.
    """
    seeds, between = len(cell.seeds), seed_variance(cell)
    if cell.design == "items" or math.isnan(within_variance(cell)):
        noise = shared_noise(cell.total / cell.n.clip(1), cell.n)
        parts = [(between, seeds - 1), (max(0.0, unit_variance(cell) - noise), len(cell.scored_units()) - 1)]
        return hull(within(summed_limits(cell.estimate, parts), cell.low, cell.high), units_limits(cell))
    draws = _two_level_draws(cell, between)

    def limits(confidence: float) -> tuple[float, float]:
        tail = (1 - confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        wanted, half = quantile(confidence, seeds - 1) * math.sqrt(between), float(high - low) / 2
        stretch = max(1.0, wanted / half) if half > 0 else 1.0
        estimate = cell.estimate
        return max(cell.low, estimate + stretch * float(low)), min(cell.high, estimate + stretch * float(high))

    return hull(limits, fixed_limits(cell))


def _two_level_draws(cell: Cell, between: float) -> Floats:
    """Bootstrap draws of the estimate minus the estimate."""
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    everywhere = cell.only([unit for unit, n in zip(cell.units, cell.n.min(axis=0), strict=True) if n > 0])
    seeds, units = everywhere.n.shape
    means = everywhere.total / everywhere.n
    within = within_variance(everywhere)
    kept = max(0.0, 1 - within / between) if between > 0 else 0.0
    shift = (everywhere.seed_means - everywhere.seed_means.mean()) * math.sqrt(kept * seeds / (seeds - 1))
    picked = rng.integers(seeds, size=(BOOTSTRAP_DRAWS, seeds))
    if everywhere.binary:
        fresh = rng.binomial(everywhere.n.astype(int), means, size=(BOOTSTRAP_DRAWS, seeds, units)) / everywhere.n - means
        noise = fresh.mean(axis=2)
    else:
        spread = (everywhere.square / everywhere.n - means**2).clip(0) / everywhere.n
        noise = rng.normal(size=(BOOTSTRAP_DRAWS, seeds)) * np.sqrt(spread.sum(axis=1)) / units
    chosen = np.take_along_axis(noise, picked, axis=1)
    return np.asarray((shift[picked] + chosen).mean(axis=1))
