"""Do the 95 % intervals hold the truth 95 times in 100? `python -m msm_bench.analysis.coverage [EXPERIMENTS]`

Every case draws synthetic experiments with a known truth (2,000 unless told otherwise), takes the interval that the analysis
would report, and counts. The same seed gives the same table. Cases outside 93.5 to 96.5 % are marked: "wide" ones hold the
truth more often than they say, which costs power; "short" ones less often, which would be wrong. Some designs are wide by
necessity; they are declared (`ONE_ROLLOUT`, `SEEDS_ALIKE`, `TWO_SEEDS`, `FEW_DIFFER`, `FEW_ITEMS`) and the reason is printed.
"""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from msm_bench.analysis.intervals import CONFIDENCE, Floats, Limits
from msm_bench.analysis.pairing import Side, combined_limits, limits_with_seeds, new_unit_limits, paired_rollout_limits
from msm_bench.analysis.ppi import two_tier
from msm_bench.analysis.rates import fixed_limits, seeds_limits, units_limits
from msm_bench.analysis.synthetic import Grid, Pairs, Rng

EXPERIMENTS = 2000
BAND = (0.935, 0.965)
ONE_ROLLOUT = (
    "one rollout a condition: the spread between conditions cannot be told from the luck of a rollout, and is counted as luck"
)
SEEDS_ALIKE = (
    "seeds hardly differ: an interval over seeds is never narrower than that of the rollouts alone, since seeds that happen to "
    "agree prove nothing"
)
TWO_SEEDS = (
    "two seeds: one degree of freedom for their spread, so the interval is the longer the less of the variance is theirs"
)
FEW_DIFFER = "hardly any pair differs: two imagined pairs are added, as no spread can be had from the pairs"
FEW_ITEMS = (
    "few items: the effective number of answers is never taken above the answers that there are, so that a spread which is "
    "small by luck does not shorten the interval"
)
_SEED = 20261126

Draw = Callable[[Rng], tuple[Limits, float]]
"""One experiment: its limits and the truth that they should hold."""


@dataclass(frozen=True)
class Case:
    """A named way of drawing experiments."""

    interval: str
    name: str
    draw: Draw
    declared: str = ""
    """Why the interval is wide by necessity; empty where it must be inside the band."""


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
    declared: str


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
        rates_b = _beside(a, rates_a, b, b.condition_rates(rng))
        side = Side(a.run(rng, rates_a), b.run(rng, rates_b), (0.0, 0.0))
        limits = new_unit_limits(side) if new else limits_with_seeds([side], side.difference, paired_rollout_limits(side))[0]
        assert limits is not None
        return limits, _new_truth(a, b) if new else float((rates_a - rates_b).mean())

    return draw


@lru_cache
def _new_truth(a: Grid, b: Grid) -> float:
    """The difference over all conditions there could be: cutting b's rates off at 0 and 1 moves their mean."""
    rng = np.random.default_rng(_SEED)
    many_a, many_b = (replace(grid, conditions=2_000_000) for grid in (a, b))
    rates_a, own = many_a.condition_rates(rng), many_b.condition_rates(rng)
    return float((rates_a - _beside(a, rates_a, b, own)).mean())


def _beside(a: Grid, rates_a: Floats, b: Grid, own: Floats) -> Floats:
    rates = 0.5 * (rates_a - a.mean_rate) + 0.5 * (own - b.mean_rate) + b.mean_rate
    return np.clip(rates, 3 * b.seed_sd, 1 - 3 * b.seed_sd)


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
    found += [Case(fixed, "27 x 1, rate .3", _fixed(Grid(0.3, rollouts=1)), ONE_ROLLOUT)]
    found += [Case(fixed, f"27 x {n}, rate .3", _fixed(Grid(0.3, rollouts=n))) for n in (10, 300)]
    found += [Case(fixed, "3 x 10, rate .3", _fixed(Grid(0.3, conditions=3, rollouts=10)))]
    found += [Case(new, f"27 x 25, rate {r}", _new(Grid(r))) for r in (0.05, 0.3, 0.68)]
    found += [Case(new, "9 x 10, rate .3", _new(Grid(0.3, conditions=9, rollouts=10)))]
    for n, sd in ((4, 0.03), (4, 0.06), (3, 0.03), (2, 0.06), (4, 0.01), (4, 0.0)):
        # Three seeds of sd .03: the rollouts make a quarter of the seeds' variance, and the floor that they set is felt.
        why = SEEDS_ALIKE if sd <= 0.01 or (n, sd) == (3, 0.03) else ""
        found.append(Case(seeds, f"{n} seeds of sd {sd}, 27 x 25, rate .4", _seeds(Grid(0.4, seeds=n, seed_sd=sd)), why))
    for n, lean in ((160, 0.3), (80, 0.3), (20, 0.3), (160, -1.5), (160, 2.2)):
        found.append(Case(items, f"{n} pairs, lean {lean}", _items(Pairs(n), lean), FEW_ITEMS if n < 40 else ""))
    for n in (4, 3, 2):
        why = TWO_SEEDS if n == 2 else ""
        found.append(Case(items, f"160 pairs, {n} seeds", _items(Pairs(seeds=n, seed_sd=0.15), 0.3), why))
    found += [Case(arms, f"27 x 25, {a} and {b}", _arms(Grid(a), Grid(b))) for a, b in ((0.68, 0.48), (0.22, 0.05), (0.3, 0.3))]
    found += [Case(arms, "9 x 10, .3 and .1", _arms(Grid(0.3, 9, 10), Grid(0.1, 9, 10)))]
    found += [Case(fresh, f"27 x 25, {a} and {b}", _arms(Grid(a), Grid(b), new=True)) for a, b in ((0.68, 0.48), (0.22, 0.1))]
    four, three = ((Grid(0.6, seeds=n, seed_sd=0.03), Grid(0.4, seeds=n, seed_sd=0.03)) for n in (4, 3))
    found += [
        Case(both, "4 seeds each of sd .03, 27 x 25", _arms(*four)),
        Case(both, "3 seeds each of sd .03, 27 x 25", _arms(*three)),
    ]
    found += [Case(both, "1 against 4 seeds of sd .03, 27 x 25", _arms(Grid(0.6), four[1]))]
    found += [Case(pairs, f"{n} pairs, one seed", _paired(Pairs(n), (0.6, 0.2))) for n in (160, 40, 20)]
    found += [Case(pairs, "160 pairs, nothing there", _paired(Pairs(), (0.2, 0.2)))]
    found += [Case(pairs, "20 pairs, both arms near 1", _paired(Pairs(20), (2.2, 2.0)), FEW_DIFFER)]
    for n in (4, 3, 2):
        why, moving = TWO_SEEDS if n == 2 else "", Pairs(seeds=n, seed_sd=0.2)
        found.append(Case(pairs, f"160 pairs, {n} seeds", _paired(moving, (0.6, 0.2)), why))
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
                declared=case.declared,
            )
        )
    return found


def render_coverage(results: list[Covered]) -> Table:
    """The results as a table for a terminal, with the reasons of those that are declared."""
    inside = sum(not result.mark for result in results)
    outside = [result for result in results if result.mark]
    caption = f"{inside} of {len(results)} cases inside {BAND[0]:.1%} to {BAND[1]:.1%}"
    caption += f", {sum(bool(result.declared) for result in outside)} of the {len(outside)} others declared:" if outside else ""
    reasons = dict.fromkeys(result.declared for result in outside if result.declared)
    table = Table(
        title=f"coverage of 95 % intervals, {results[0].experiments:,} experiments a case",
        caption="\n".join([caption, *(f"({letter}) {reason}" for letter, reason in zip("abcdefgh", reasons, strict=False))]),
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("interval")
    table.add_column("case")
    table.add_column("covered", justify="right")
    table.add_column("mean width", justify="right")
    table.add_column("")
    letters = dict(zip(reasons, "abcdefgh", strict=False))
    for result in results:
        mark = f"{result.mark} ({letters[result.declared]})" if result.mark and result.declared else result.mark
        table.add_row(result.interval, result.name, f"{result.coverage:.1%}", f"{result.width:.3f}", mark)
    return table


def main(arguments: list[str]) -> None:
    """Prints the table for all cases."""
    experiments = int(arguments[0]) if arguments else EXPERIMENTS
    Console(width=120).print(render_coverage(simulate(cases(), experiments)))


if __name__ == "__main__":
    main(sys.argv[1:])
