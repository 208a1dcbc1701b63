"""How many rollouts a wanted difference takes, or what difference a number of rollouts can show.

The contrast is the one of `contrasts` with conditions held fixed: two arms, each condition's rollouts independent, so the
difference has the variance 2 v / (conditions x rollouts) with v the mean of p(1 - p) over conditions. v needs rates before
there are any: the stated prior is the printed baselines of the 27 conditions (see `published`), moved to another mean rate
where one is given. Seeds add 2 sd^2 / seeds; with one seed nothing is known of that part and it is left out, which the plan
says.
"""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.table import Table
from scipy import optimize, stats

from msm_bench.analysis.intervals import Floats
from msm_bench.analysis.published import published
from msm_bench.errors import RequestError

USUAL_ROLLOUTS = (10, 25, 100, 300)
DEFAULT_PRIOR = "qwen2.5-32b"


class PowerPlan(BaseModel):
    """One line of a plan: with `rollouts` a condition, a true `difference` (of rates) is shown with probability `chance`.

    `total` counts all rollouts of all arms and seeds. `level` is the p below which a contrast counts, after dividing by the
    number of contrasts (the strictest step of Holm).
    """

    model_config = ConfigDict(frozen=True)

    rollouts: int
    difference: float
    arms: int
    conditions: int
    seeds: int
    seed_sd: float | None
    contrasts: int
    level: float
    chance: float
    total: int
    prior: str
    prior_rate: float
    note: str


def power(
    rollouts: int | None = None,
    difference: float | None = None,
    *,
    arms: int = 2,
    conditions: int = 27,
    contrasts: int = 1,
    seeds: int = 1,
    seed_sd: float | None = None,
    prior: str = DEFAULT_PRIOR,
    rate: float | None = None,
    chance: float = 0.8,
) -> list[PowerPlan]:
    """Plans for one number of rollouts, for one wanted difference, or (with neither) for the usual numbers.

    Args:
        rollouts: A condition, seed and arm.
        difference: The true difference of two arms' rates that is to be shown, between 0 and 1.
        arms: For the total.
        conditions: Conditions that every arm runs.
        contrasts: Declared contrasts.
        seeds: Training seeds an arm.
        seed_sd: Standard deviation of an arm's rate over seeds; None leaves seeds out.
        prior: A model whose baselines by condition are printed.
        rate: Mean rate to move the prior to.
        chance: The wanted power.

    Raises:
        RequestError: A number out of its range, or a difference that no number of rollouts can show with these seeds.
        UnknownNameError: No printed baselines for the prior.
    """
    if rollouts is not None and difference is not None:
        raise RequestError("Rollouts and a difference were both given.", "Give one, to be told the other.")
    for name, number in (("arms", arms), ("conditions", conditions), ("contrasts", contrasts), ("seeds", seeds)):
        if number < (2 if name == "arms" else 1):
            raise RequestError(f"{name} is {number}.", f"Give at least {2 if name == 'arms' else 1}.")
    if rollouts is not None and rollouts < 1:
        raise RequestError(f"{rollouts} rollouts are none.", "Give at least 1.")
    for name, share in (("difference", difference), ("rate", rate), ("chance", chance)):
        if share is not None and not 0 < share < 1:
            raise RequestError(f"The {name} is {share:g}.", "Give a number between 0 and 1, not a percentage.")
    rates = prior_rates(prior, rate)
    spread, level = float((rates * (1 - rates)).mean()), 0.05 / contrasts
    by_seeds = 0.0 if seed_sd is None else 2 * seed_sd**2 / seeds
    note = "Seeds are left out: the difference is that of these checkpoints." if seed_sd is None else ""
    reach = stats.norm.isf(level / 2) + stats.norm.ppf(chance)

    def plan(number: int) -> PowerPlan:
        variance = 2 * spread / (conditions * number * seeds) + by_seeds
        return PowerPlan(
            rollouts=number,
            difference=float(reach * math.sqrt(variance)),
            arms=arms,
            conditions=conditions,
            seeds=seeds,
            seed_sd=seed_sd,
            contrasts=contrasts,
            level=level,
            chance=chance,
            total=arms * seeds * conditions * number,
            prior=f"baselines of {prior} by condition (Figures 12 and 13)" + (f", moved to a mean of {rate:g}" if rate else ""),
            prior_rate=float(rates.mean()),
            note=note,
        )

    if difference is None:
        return [plan(number) for number in ((rollouts,) if rollouts is not None else USUAL_ROLLOUTS)]
    room = (difference / float(reach)) ** 2 - by_seeds
    if room <= 0:
        smallest = float(reach) * math.sqrt(by_seeds)
        raise RequestError(
            f"With {seeds} seeds of standard deviation {seed_sd:g} no number of rollouts shows less than {smallest:.3f}.",
            "Train more seeds, or look for a larger difference.",
        )
    return [plan(math.ceil(2 * spread / (conditions * seeds * room)))]


def prior_rates(prior: str = DEFAULT_PRIOR, rate: float | None = None) -> Floats:
    """The printed rates by condition, all moved on the logit scale by one amount so that their mean is `rate`."""
    printed = [value.value for value in published(f"published:figures-12-13/{prior}")]
    logits = np.log(np.array(printed) / (1 - np.array(printed)))
    if rate is None:
        return np.array(printed)
    moved = optimize.brentq(lambda shift: (1 / (1 + np.exp(-logits - shift))).mean() - rate, -30, 30)
    return np.asarray(1 / (1 + np.exp(-logits - moved)), dtype=float)


def render_power(plans: list[PowerPlan]) -> Table:
    """The plans as a table for a terminal."""
    first = plans[0]
    title = f"{first.chance:.0%} power, p < {first.level:.2g}, {first.conditions} conditions; prior: {first.prior}"
    table = Table(title=title, caption=first.note or None, box=None, pad_edge=False, header_style="bold")
    for heading in ("rollouts a condition", "difference", "seeds", "arms", "rollouts in all"):
        table.add_column(heading, justify="right")
    for plan in plans:
        points = f"{100 * plan.difference:.1f} points"
        table.add_row(str(plan.rollouts), points, str(plan.seeds), str(plan.arms), f"{plan.total:,}")
    return table
