"""Metrics of pairs asked in both orders. A sample's id is `<value>/<domain>/<nnn>/<ab|ba>`, which is all that they go by.

Epochs of a sample count as one number, their mean. The two orders of a pair are no independent observations, so standard errors
are clustered by pair. What was not scored is left out, and where nothing is left the metric is NaN, never 0.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

from inspect_ai.scorer import Metric, SampleScore, Value, metric

PairScores = dict[str, dict[str, float]]
"""Pair to order (`ab`, `ba`) to the mean over epochs; an order that was not scored is absent."""


def by_pair(scores: Iterable[SampleScore]) -> PairScores:
    """Scored values by pair and order."""
    epochs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for item in scores:
        value = item.score.as_float()
        if not math.isnan(value):
            pair, _, order = str(item.sample_id).rpartition("/")
            epochs[pair, order].append(value)
    pairs: PairScores = defaultdict(dict)
    for (pair, order), values in epochs.items():
        pairs[pair][order] = sum(values) / len(values)
    return dict(pairs)


def mean_of(pairs: PairScores) -> float:
    """Mean over samples."""
    values = [value for orders in pairs.values() for value in orders.values()]
    return sum(values) / len(values) if values else math.nan


def clustered_stderr(pairs: PairScores) -> float:
    """Standard error of that mean, clustered by pair, with the correction G / (G - 1) for G pairs; NaN below two pairs."""
    count, mean = len(pairs), mean_of(pairs)
    if count < 2:
        return math.nan
    samples = sum(len(orders) for orders in pairs.values())
    squares = sum(sum(value - mean for value in orders.values()) ** 2 for orders in pairs.values())
    return math.sqrt(squares * count / (count - 1)) / samples


def mean_bias(pairs: PairScores) -> float:
    """Rate of choosing the first-named thing, minus one half; over pairs that are scored in both orders."""
    whole = _whole(pairs)
    return sum(ab - ba for ab, ba in whole) / (2 * len(whole)) if whole else math.nan


def agreement(pairs: PairScores) -> float:
    """Share of pairs, scored in both orders, whose orders choose the same thing (with epochs: the chance that two draws do)."""
    whole = _whole(pairs)
    return sum(ab * ba + (1 - ab) * (1 - ba) for ab, ba in whole) / len(whole) if whole else math.nan


def _whole(pairs: PairScores) -> list[tuple[float, float]]:
    return [(orders["ab"], orders["ba"]) for orders in pairs.values() if len(orders) == 2]


def _grouped(scores: list[SampleScore], parts: int, of: Callable[[PairScores], float]) -> Value:
    """`of` each group of pairs whose names begin with the same `parts` parts."""
    groups: dict[str, PairScores] = defaultdict(dict)
    for pair, orders in by_pair(scores).items():
        groups["/".join(pair.split("/")[:parts])][pair] = orders
    return {name: of(pairs) for name, pairs in sorted(groups.items())}


@metric(scores="unreduced")
def rate() -> Metric:
    """Mean over samples."""

    def compute(scores: list[SampleScore]) -> Value:
        return mean_of(by_pair(scores))

    return compute


@metric(scores="unreduced")
def rate_stderr() -> Metric:
    """Standard error of `rate`, clustered by pair."""

    def compute(scores: list[SampleScore]) -> Value:
        return clustered_stderr(by_pair(scores))

    return compute


@metric(scores="unreduced")
def position_bias() -> Metric:
    """Rate of choosing the first-named thing minus one half: 0 is none, 0.5 always the first, -0.5 always the second."""

    def compute(scores: list[SampleScore]) -> Value:
        return mean_bias(by_pair(scores))

    return compute


@metric(scores="unreduced")
def both_orders_agree() -> Metric:
    """Share of pairs whose two orders choose the same thing; 0.5 is what a coin gives, 0 what position alone gives."""

    def compute(scores: list[SampleScore]) -> Value:
        return agreement(by_pair(scores))

    return compute


@metric(scores="unreduced")
def rate_by_value() -> Metric:
    """`rate` within each value."""

    def compute(scores: list[SampleScore]) -> Value:
        return _grouped(scores, 1, mean_of)

    return compute


@metric(scores="unreduced")
def rate_stderr_by_value() -> Metric:
    """`rate_stderr` within each value."""

    def compute(scores: list[SampleScore]) -> Value:
        return _grouped(scores, 1, clustered_stderr)

    return compute


@metric(scores="unreduced")
def rate_by_domain() -> Metric:
    """`rate` within each domain of each value, under the name `<value>/<domain>`."""

    def compute(scores: list[SampleScore]) -> Value:
        return _grouped(scores, 2, mean_of)

    return compute


@metric(scores="unreduced")
def rate_stderr_by_domain() -> Metric:
    """`rate_stderr` within each domain of each value."""

    def compute(scores: list[SampleScore]) -> Value:
        return _grouped(scores, 2, clustered_stderr)

    return compute
