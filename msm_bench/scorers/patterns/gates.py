"""The gates: a labeller's agreement with known labels, pattern by pattern, and whether its labels may be shown as a rate."""

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from msm_bench.scorers.patterns.labelled_set import LabelledText
from msm_bench.scorers.patterns.labels import Labelling

KAPPA_FLOOR = 0.5
MIN_TEXTS = 10
"""Texts with the pattern, and without it, below which a kappa says nothing about the labeller."""
NOT_MEASURABLE = "not measurable with this judge"
TOO_FEW = "too few labelled texts to tell"
_BINS = 10


class Gate(BaseModel):
    """Agreement on one pattern. What cannot be computed is NaN, never zero."""

    model_config = ConfigDict(frozen=True)

    pattern: str
    n: int
    """Texts that were labelled."""
    n_all: int
    """Texts that were to be labelled; the others failed."""
    positives: int
    """Texts of the n that have the pattern."""
    found: int
    """Texts of the n that the labeller says have it. `found - positives`, over n, is the error of the rate itself."""
    kappa: float
    precision: float
    recall: float
    hard_negatives: int
    """Texts of the n that come close to the pattern without having it."""
    hard_negative_errors: float
    """Share of those that the labeller took for it."""
    average_precision: float = math.nan
    """Area under precision over recall, where the labeller has probabilities: how well it ranks, whatever the threshold."""
    brier: float = math.nan
    """Mean squared error of the probabilities, where the labeller has any."""
    calibration_error: float = math.nan
    """Expected calibration error over ten bins of equal width, where the labeller has probabilities."""

    @property
    def enough(self) -> bool:
        """Whether there were texts enough, with the pattern and without it, to measure on."""
        return min(self.positives, self.n - self.positives) >= MIN_TEXTS

    @property
    def measurable(self) -> bool:
        """Whether the labels may be shown as a rate. Kappa that could not be computed does not pass."""
        return self.enough and self.kappa >= KAPPA_FLOOR

    @property
    def verdict(self) -> str:
        if not self.enough:
            return TOO_FEW
        return "measurable" if self.measurable else NOT_MEASURABLE


def measure(
    texts: Sequence[LabelledText],
    found: Sequence[frozenset[str] | None],
    patterns: Sequence[str],
    probabilities: Sequence[Mapping[str, float]] | None = None,
) -> list[Gate]:
    """One gate a pattern.

    Args:
        texts: The labelled texts.
        found: What the labeller found in each; None where it failed, which is no label and counts as such.
        patterns: The patterns to measure.
        probabilities: What it holds likely, in each text, where it says so.
    """
    scored = [i for i, labels in enumerate(found) if labels is not None]
    gates = []
    for name in patterns:
        gold = [name in texts[i].labels for i in scored]
        said = [name in (found[i] or ()) for i in scored]
        near = [name in texts[i].hard_negative_for for i in scored]
        both = sum(g and s for g, s in zip(gold, said, strict=True))
        likely = [probabilities[i].get(name, math.nan) for i in scored] if probabilities is not None else []
        gates.append(
            Gate(
                pattern=name,
                n=len(scored),
                n_all=len(texts),
                positives=sum(gold),
                found=sum(said),
                kappa=kappa(gold, said),
                precision=_ratio(both, sum(said)),
                recall=_ratio(both, sum(gold)),
                hard_negatives=sum(near),
                hard_negative_errors=_ratio(sum(n and s for n, s in zip(near, said, strict=True)), sum(near)),
                average_precision=_average_precision(likely, gold),
                brier=_ratio(sum((p - g) ** 2 for p, g in zip(likely, gold, strict=False)), len(likely)),
                calibration_error=_calibration_error(likely, gold),
            )
        )
    return gates


def gates_of(texts: Sequence[LabelledText], labellings: Sequence[Labelling], patterns: Sequence[str]) -> list[Gate]:
    """The gates of labellings: see `measure`."""
    found = [None if labelling.failure else labelling.present for labelling in labellings]
    likely = [labelling.probabilities or {} for labelling in labellings]
    return measure(texts, found, patterns, likely if any(likely) else None)


def kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Cohen's kappa of two raters; NaN where both only ever say the same one thing, or there is nothing rated."""
    n = len(first)
    if n == 0:
        return math.nan
    agreement = sum(a == b for a, b in zip(first, second, strict=True)) / n
    yes_a, yes_b = sum(first) / n, sum(second) / n
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    return math.nan if chance == 1 else (agreement - chance) / (1 - chance)


def table(gates: Sequence[Gate]) -> str:
    """The gates as a Markdown table, best kappa first."""
    lines = [
        "| pattern | kappa | precision | recall | hard negatives taken | present | found | n | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for gate in sorted(gates, key=lambda gate: -gate.kappa if not math.isnan(gate.kappa) else math.inf):
        numbers = (gate.kappa, gate.precision, gate.recall, gate.hard_negative_errors)
        cells = " | ".join("–" if math.isnan(x) else f"{x:.2f}" for x in numbers)
        counts = f"{gate.positives} | {gate.found} | {gate.n} of {gate.n_all}"
        lines.append(f"| {gate.pattern} | {cells} | {counts} | {gate.verdict} |")
    return "\n".join(lines)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _average_precision(likely: Sequence[float], gold: Sequence[bool]) -> float:
    """Mean over the steps of recall of the precision there; equal probabilities are one step."""
    if not any(gold) or len(likely) != len(gold) or any(math.isnan(p) for p in likely):
        return math.nan
    ordered = sorted(zip(likely, gold, strict=True), key=lambda pair: -pair[0])
    total, right, area, before = sum(gold), 0, 0.0, 0
    for number, (p, g) in enumerate(ordered, start=1):
        right += g
        if number == len(ordered) or ordered[number][0] < p:
            area += (right - before) / total * right / number
            before = right
    return area


def _calibration_error(likely: Sequence[float], gold: Sequence[bool]) -> float:
    if not likely or any(math.isnan(p) for p in likely):
        return math.nan
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for p, g in zip(likely, gold, strict=True):
        bins[min(int(p * _BINS), _BINS - 1)].append((p, g))
    return sum(abs(sum(p for p, _ in part) - sum(g for _, g in part)) for part in bins if part) / len(likely)
