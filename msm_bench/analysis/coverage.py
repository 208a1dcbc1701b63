"""Do the 95 % intervals hold the truth 95 times in 100? `python -m msm_bench.analysis.coverage [EXPERIMENTS]`

Every case draws synthetic experiments with a known truth (2,000 unless told otherwise), takes the interval that the analysis
would report, and counts. The same seed gives the same table. Cases outside 93.5 to 96.5 % are marked: "wide" ones hold the
truth more often than they say, which costs power; "short" ones less often, which would be wrong.
"""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from msm_bench.analysis.intervals import CONFIDENCE, Limits
from msm_bench.analysis.pairing import Side, combined_limits, limits_with_seeds, new_unit_limits, paired_rollout_limits
from msm_bench.analysis.ppi import two_tier
from msm_bench.analysis.rates import fixed_limits, seeds_limits, units_limits
from msm_bench.analysis.synthetic import Grid, Pairs, Rng

EXPERIMENTS = 2000
BAND = (0.935, 0.965)
_SEED = 20261126

Draw = Callable[[Rng], tuple[Limits, float]]
"""One experiment: its limits and the truth that they should hold."""


@dataclass(frozen=True)
class Case:
    """A named way of drawing experiments."""

    interval: str
    name: str
    draw: Draw


class Covered(BaseModel):
    """What came of one case. `mark` is "", "wide" or "short"; `noise` the standard error of `coverage`."""

    model_config = ConfigDict(frozen=True)

    interval: str
    name: str
    experiments: int
    coverage: float
    noise: float
    width: float
    mark: str


def _fixed(grid: Grid) -> Draw:
    def draw(rng: Rng) -> tuple[Limits, float]:
        rates = grid.condition_rates(rng)
        return fixed_limits(grid.run(rng, rates)), float(rates.mean())

    return draw


def _new(grid: Grid) -> Draw:
    return lambda rng: (units_limits(grid.run(rng, grid.condition_rates(rng))), grid.mean_rate)


def _seeds(grid: Grid) -> Draw:
    def draw(rng: Rng) -> tuple[Limits, float]:
        rates = grid.condition_rates(rng)
        return seeds_limits(grid.run(rng, rates)), float(rates.mean())

    return draw


def _items(pairs: Pairs, lean: float) -> Draw:
    def draw(rng: Rng) -> tuple[Limits, float]:
        (cell,), (truth,) = pairs.run(rng, (lean,))
        return (seeds_limits if pairs.seeds > 1 else units_limits)(cell), truth

    return draw


def _arms(a: Grid, b: Grid, new: bool = False) -> Draw:
    """Two arms on the same conditions, the second's rates being a mix of the first's and of its own."""

    def draw(rng: Rng) -> tuple[Limits, float]:
        rates_a = a.condition_rates(rng)
        rates_b = 0.5 * (rates_a - a.mean_rate) + 0.5 * (b.condition_rates(rng) - b.mean_rate) + b.mean_rate
        rates_b = np.clip(rates_b, 3 * b.seed_sd, 1 - 3 * b.seed_sd)
        side = Side(a.run(rng, rates_a), b.run(rng, rates_b), (0.0, 0.0))
        limits = new_unit_limits(side) if new else limits_with_seeds([side], side.difference, paired_rollout_limits(side))[0]
        assert limits is not None
        return limits, a.mean_rate - b.mean_rate if new else float((rates_a - rates_b).mean())

    return draw


def _paired(pairs: Pairs, leans: tuple[float, float], other: tuple[float, float] | None = None) -> Draw:
    """Two arms on the same pairs; with `other` the interaction with a second probe, seeds moving both probes apart."""

    def draw(rng: Rng) -> tuple[Limits, float]:
        sides, truth = [], 0.0
        for sign, given in ((1, leans), (-1, other)):
            if given is not None:
                (cell_a, cell_b), truths = pairs.run(rng, given)
                sides.append(Side(cell_a, cell_b, (0.0, 0.0)))
                truth += sign * (truths[0] - truths[1])
        values = [side.difference for side in sides]
        difference = values[0] - (values[1] if len(values) > 1 else 0.0)
        plain = combined_limits([paired_rollout_limits(side) for side in sides], values)
        return limits_with_seeds(sides, difference, plain)[0], truth

    return draw


def _judges(rate: float, part: float, right: float) -> Draw:
    """Two-tier judging of 27 x 25 rollouts; the cheap judge agrees with the strong one with probability `right`."""

    def draw(rng: Rng) -> tuple[Limits, float]:
        rates = Grid(rate).condition_rates(rng)
        strong = rng.binomial(1, np.repeat(rates, 25)).astype(float)
        cheap = np.where(rng.random(len(strong)) < right, strong, 1 - strong)
        unseen = np.concatenate([rng.permutation(25) >= round(part * 25) for _ in rates])
        found = two_tier(
            cheap.tolist(), np.where(unseen, math.nan, strong).tolist(), [str(i // 25) for i in range(len(strong))]
        )
        return (lambda confidence: (found.low, found.high)), float(rates.mean())

    return draw


def cases() -> list[Case]:
    """All cases, grouped by interval."""
    fixed, new, seeds, items = "rate, these conditions", "rate, new conditions", "rate, seeds", "rate, items"
    arms, fresh, both, pairs = (
        "contrast, these conditions",
        "contrast, new conditions",
        "contrast, seeds",
        "contrast, item pairs",
    )
    found = [Case(fixed, f"27 x 25, rate {r}", _fixed(Grid(r))) for r in (0.02, 0.05, 0.3, 0.68, 0.95)]
    found += [Case(fixed, f"27 x {n}, rate .3", _fixed(Grid(0.3, rollouts=n))) for n in (1, 10, 300)]
    found += [Case(fixed, "3 x 10, rate .3", _fixed(Grid(0.3, conditions=3, rollouts=10)))]
    found += [Case(new, f"27 x 25, rate {r}", _new(Grid(r))) for r in (0.05, 0.3, 0.68)]
    found += [Case(new, "9 x 10, rate .3", _new(Grid(0.3, conditions=9, rollouts=10)))]
    for n, sd in ((4, 0.03), (4, 0.06), (3, 0.03), (2, 0.06), (4, 0.0)):
        found.append(Case(seeds, f"{n} seeds of sd {sd}, 27 x 25, rate .4", _seeds(Grid(0.4, seeds=n, seed_sd=sd))))
    found += [
        Case(items, f"{n} pairs, lean {lean}", _items(Pairs(n), lean)) for n, lean in ((160, 0.3), (40, 0.3), (160, -1.5))
    ]
    found += [Case(items, "160 pairs, 3 seeds", _items(Pairs(seeds=3, seed_sd=0.15), 0.3))]
    found += [Case(arms, f"27 x 25, {a} and {b}", _arms(Grid(a), Grid(b))) for a, b in ((0.68, 0.48), (0.22, 0.05), (0.3, 0.3))]
    found += [Case(arms, "9 x 10, .3 and .1", _arms(Grid(0.3, 9, 10), Grid(0.1, 9, 10)))]
    found += [Case(fresh, f"27 x 25, {a} and {b}", _arms(Grid(a), Grid(b), new=True)) for a, b in ((0.68, 0.48), (0.22, 0.1))]
    four, three = ((Grid(0.6, seeds=n, seed_sd=0.03), Grid(0.4, seeds=n, seed_sd=0.03)) for n in (4, 3))
    found += [
        Case(both, "4 seeds each of sd .03, 27 x 25", _arms(*four)),
        Case(both, "3 seeds each of sd .03, 27 x 25", _arms(*three)),
    ]
    found += [Case(both, "1 against 4 seeds of sd .03, 27 x 25", _arms(Grid(0.6), four[1]))]
    found += [Case(pairs, f"{n} pairs, one seed", _paired(Pairs(n), (0.6, 0.2))) for n in (160, 40)]
    found += [Case(pairs, "160 pairs, nothing there", _paired(Pairs(), (0.2, 0.2)))]
    found += [Case(pairs, "160 pairs, 3 seeds", _paired(Pairs(seeds=3, seed_sd=0.2), (0.6, 0.2)))]
    found += [Case("interaction, item pairs", "2 x 160 pairs, one seed", _paired(Pairs(), (0.6, 0.2), (0.1, 0.2)))]
    moving = Pairs(seeds=3, seed_sd=0.2)
    found += [Case("interaction, item pairs", "2 x 160 pairs, 3 seeds", _paired(moving, (0.6, 0.2), (0.1, 0.2)))]
    return found + [
        Case("two-tier judging", f"27 x 25, {part:.0%} strong, cheap right {right:.0%}", _judges(0.3, part, right))
        for part, right in ((0.2, 0.95), (0.2, 0.7), (0.4, 0.5))
    ]


def simulate(chosen: Iterable[Case], experiments: int = EXPERIMENTS) -> list[Covered]:
    """Coverage of each case; the random numbers of a case do not depend on the cases before it."""
    found = []
    for case in chosen:
        rng = np.random.default_rng([_SEED, *case.interval.encode(), *case.name.encode()])
        held, width = 0, 0.0
        for _ in range(experiments):
            limits, truth = case.draw(rng)
            low, high = limits(CONFIDENCE)
            held += low <= truth <= high
            width += high - low
        share = held / experiments
        mark = "short" if share < BAND[0] else "wide" if share > BAND[1] else ""
        noise = math.sqrt(share * (1 - share) / experiments)
        found.append(
            Covered(
                interval=case.interval,
                name=case.name,
                experiments=experiments,
                coverage=share,
                noise=noise,
                width=width / experiments,
                mark=mark,
            )
        )
    return found


def render_coverage(results: list[Covered]) -> Table:
    """The results as a table for a terminal."""
    inside = sum(not result.mark for result in results)
    table = Table(
        title=f"coverage of 95 % intervals, {results[0].experiments:,} experiments a case",
        caption=f"{inside} of {len(results)} cases inside {BAND[0]:.1%} to {BAND[1]:.1%}",
        box=None,
        pad_edge=False,
    )
    for heading, justify in (
        ("interval", "left"),
        ("case", "left"),
        ("covered", "right"),
        ("mean width", "right"),
        ("", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for result in results:
        table.add_row(result.interval, result.name, f"{result.coverage:.1%}", f"{result.width:.3f}", result.mark)
    return table


def main(arguments: list[str]) -> None:
    """Prints the table for all cases."""
    experiments = int(arguments[0]) if arguments else EXPERIMENTS
    Console(width=120).print(render_coverage(simulate(cases(), experiments)))


if __name__ == "__main__":
    main(sys.argv[1:])
