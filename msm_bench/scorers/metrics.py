"""Metrics over conditions: a rate is the mean of the conditions' means, its standard error is taken over conditions.

Inspect's own `stderr` reduces the epochs first and reports 0 for one sample, however many epochs it has. Here a single
condition gets the standard error over its epochs, and a single rollout gets none at all (NaN), never 0.
"""

import math
from collections import defaultdict

from inspect_ai.scorer import Metric, SampleScore, Value, metric


def condition_means(scores: list[SampleScore]) -> dict[str, list[float]]:
    """Values by condition (sample id), unscored ones left out."""
    by_condition: dict[str, list[float]] = defaultdict(list)
    for item in scores:
        value = item.score.as_float()
        if not math.isnan(value):
            by_condition[str(item.sample_id)].append(value)
    return dict(by_condition)


def mean_over_conditions(scores: list[SampleScore]) -> float:
    """Mean of the conditions' means; NaN when nothing is scored."""
    means = [sum(values) / len(values) for values in condition_means(scores).values()]
    return sum(means) / len(means) if means else math.nan


def stderr_over_conditions(scores: list[SampleScore]) -> float:
    """Standard error of the mean over conditions (n - 1 in the variance).

    With one condition: over its epochs. With one rollout: NaN, since one number has no spread.
    """
    conditions = condition_means(scores)
    values = [sum(v) / len(v) for v in conditions.values()]
    if len(values) == 1:
        values = next(iter(conditions.values()))
    n = len(values)
    if n < 2:
        return math.nan
    mean = sum(values) / n
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _by(scores: list[SampleScore], key: str) -> dict[str, list[SampleScore]]:
    groups: dict[str, list[SampleScore]] = defaultdict(list)
    for item in scores:
        groups[str((item.sample_metadata or {}).get(key, "?"))].append(item)
    return dict(groups)


@metric(scores="unreduced")
def mean() -> Metric:
    """Mean of the conditions' means."""

    def compute(scores: list[SampleScore]) -> Value:
        return mean_over_conditions(scores)

    return compute


@metric(scores="unreduced")
def stderr() -> Metric:
    """Standard error over conditions; see `stderr_over_conditions`."""

    def compute(scores: list[SampleScore]) -> Value:
        return stderr_over_conditions(scores)

    return compute


@metric(scores="unreduced")
def mean_by(key: str) -> Metric:
    """Mean of the conditions' means within each value of the sample metadata `key`."""

    def compute(scores: list[SampleScore]) -> Value:
        return {name: mean_over_conditions(group) for name, group in _by(scores, key).items()}

    return compute


@metric(scores="unreduced")
def stderr_by(key: str) -> Metric:
    """Standard error over the conditions within each value of the sample metadata `key`."""

    def compute(scores: list[SampleScore]) -> Value:
        return {name: stderr_over_conditions(group) for name, group in _by(scores, key).items()}

    return compute
