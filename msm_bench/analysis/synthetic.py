"""Synthetic experiments with a known truth, drawn as the design has them: conditions or item pairs, rollouts, seeds.

Nothing here uses the formulas under test: values are drawn, counted and handed over as `Cell`s.
"""

from dataclasses import dataclass

import numpy as np

from msm_bench.analysis.cells import Cell, Design
from msm_bench.analysis.intervals import Floats

Rng = np.random.Generator


@dataclass(frozen=True)
class Grid:
    """Conditions with rates from a beta distribution of mean `rate` and size `size`, sampled `rollouts` times a seed.

    Size 1 to 3 resembles the printed baselines (standard deviation .2 to .3 between conditions), 20 nearly equal conditions.
    `seed_sd` moves all conditions of a seed together on the rate's scale.
    """

    rate: float
    conditions: int = 27
    rollouts: int = 25
    size: float = 3.0
    seeds: int = 1
    seed_sd: float = 0.0

    def condition_rates(self, rng: Rng) -> Floats:
        """True rates of freshly drawn conditions, kept far enough from 0 and 1 for the seeds to move them both ways."""
        margin = 3 * self.seed_sd
        drawn = rng.beta(self.rate * self.size, (1 - self.rate) * self.size, self.conditions)
        return np.asarray(margin + (1 - 2 * margin) * drawn, dtype=float)

    @property
    def mean_rate(self) -> float:
        """The mean over all conditions there could be."""
        margin = 3 * self.seed_sd
        return margin + (1 - 2 * margin) * self.rate

    def run(self, rng: Rng, rates: Floats, seed_effects: Floats | None = None) -> Cell:
        """One experiment on the given conditions."""
        effects = rng.normal(0, self.seed_sd, self.seeds) if seed_effects is None else seed_effects
        # Cut at three standard deviations, so that a moved rate stays a rate and its mean stays put.
        moved = rates + np.clip(effects, -3 * self.seed_sd, 3 * self.seed_sd)[:, None]
        hits = rng.binomial(self.rollouts, moved).astype(float)
        return counts_cell(hits, np.full(hits.shape, float(self.rollouts)), hits, "conditions")


@dataclass(frozen=True)
class Pairs:
    """Item pairs asked in both orders: an arm chooses the aligned side by its own taste for the pair, the order and luck.

    The taste is normal with mean `lean` and standard deviation `taste`; `place` pulls to the first-named thing. Arms share half
    of the taste's variance, so that their answers to one pair resemble each other.
    """

    pairs: int = 160
    taste: float = 1.0
    place: float = 0.8
    seeds: int = 1
    seed_sd: float = 0.0

    def run(self, rng: Rng, leans: tuple[float, ...]) -> tuple[list[Cell], list[float]]:
        """One cell for each arm, and each arm's true rate over all pairs and seeds there could be."""
        common = rng.normal(0, self.taste * np.sqrt(0.5), self.pairs)
        cells, truths = [], []
        for lean in leans:
            own = common + rng.normal(0, self.taste * np.sqrt(0.5), self.pairs)
            effects = rng.normal(0, self.seed_sd, (self.seeds, 1)) if self.seed_sd else np.zeros((self.seeds, 1))
            lead = lean + own + effects
            answers = [(lead + side * self.place + rng.normal(0, 0.5, lead.shape) > 0).astype(float) for side in (1, -1)]
            total = answers[0] + answers[1]
            cells.append(counts_cell(total, np.full(total.shape, 2.0), total, "items"))
            truths.append(self._truth(lean))
        return cells, truths

    def _truth(self, lean: float) -> float:
        from scipy import stats

        spread = np.sqrt(self.taste**2 + self.seed_sd**2 + 0.25)
        return float(np.mean([stats.norm.cdf((lean + side * self.place) / spread) for side in (1, -1)]))


def counts_cell(total: Floats, n: Floats, square: Floats, design: Design) -> Cell:
    """A cell from counts of shape (seeds, units)."""
    seeds, units = total.shape
    names = tuple(f"{unit:04d}" for unit in range(units))
    return Cell(n=n, total=total, square=square, planned=n, units=names, seeds=tuple(map(str, range(seeds))), design=design)
