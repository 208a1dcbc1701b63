"""Limits as functions of the confidence, so that an interval and its p-value are one method and never contradict each other.

Sources: Wilson (1927) and its effective-sample form for surveys (Korn & Graubard 1998; Franco et al. 2019); differences and
ratios from the limits of the two sides, "MOVER" (Newcombe 1998; Zou & Donner 2008); means of skewed values, Hall (1992, JRSS B
54); paired proportions, Bonett & Price (2012); sums of variances, Banerjee (1961); degrees of freedom, Satterthwaite (1946) and
Welch (1947); Holm (1979); TOST (Schuirmann 1987).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Limits = Callable[[float], tuple[float, float]]
"""Confidence (0 to 1) to the lower and upper limit."""

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
DIFFER = 5
"""So many differing pairs give their spread a footing of their own."""
SMALLEST_P = 1e-12


def quantile(confidence: float, df: float = math.inf) -> float:
    """The two-sided quantile of Student's t (df infinite: the normal)."""
    tail = (1 - confidence) / 2
    return float(stats.norm.isf(tail) if math.isinf(df) else stats.t.isf(tail, df))


def wilson_limits(rate: float, n: float, df: float = math.inf) -> Limits:
    """Wilson's score limits of a rate from `n` (effective) draws; never of zero width, also at rates of 0 and 1."""

    def limits(confidence: float) -> tuple[float, float]:
        q = quantile(confidence, df)
        scale = 1 + q * q / n
        centre = (rate + q * q / (2 * n)) / scale
        half = q / scale * math.sqrt(rate * (1 - rate) / n + q * q / (4 * n * n))
        return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))

    return limits


def t_limits(estimate: float, se: float, df: float = math.inf) -> Limits:
    """Symmetric limits, estimate plus and minus quantile times standard error."""

    def limits(confidence: float) -> tuple[float, float]:
        half = quantile(confidence, df) * se
        return estimate - half, estimate + half

    return limits


def skewed_limits(values: Floats, se: float) -> Limits:
    """Limits of a mean from few skewed values: Student's t through Hall's (1992) cubic transformation.

    `se` is the mean's standard error, which may be larger than what the values' own spread gives, never 0.
    """
    mean, n = float(values.mean()), len(values)
    skewness = float(np.mean((values - mean) ** 3)) / (se * math.sqrt(n)) ** 3
    bend = skewness / math.sqrt(n)

    def untransformed(q: float) -> float:
        return q if abs(bend) < 1e-9 else (float(np.cbrt(1 + bend * (q - bend / 6))) - 1) * 3 / bend

    def limits(confidence: float) -> tuple[float, float]:
        q = quantile(confidence, n - 1)
        ends = (mean - untransformed(q) * se, mean, mean - untransformed(-q) * se)
        return min(ends), max(ends)

    return limits


def within(limits: Limits, low: float, high: float) -> Limits:
    """The same limits, cut off where no value can lie."""

    def cut(confidence: float) -> tuple[float, float]:
        lower, upper = limits(confidence)
        return max(low, lower), min(high, upper)

    return cut


def summed_limits(estimate: float, parts: Sequence[tuple[float, float]]) -> Limits:
    """Limits of an estimate whose variance is a sum of independent parts, from their (variance, degrees of freedom).

    Halfway between two half widths. Each part's own t times its standard error, added in squares, never falls short (Banerjee
    1961) but holds the truth 97 to 98 times in 100 when one part rests on two or three seeds. One t with Satterthwaite's
    degrees of freedom falls short there, down to 92. Halfway lies within 94 and 97 for three seeds and more, whatever their
    share of the variance.
    """

    def limits(confidence: float) -> tuple[float, float]:
        apart = math.sqrt(sum(quantile(confidence, df) ** 2 * variance for variance, df in parts))
        together = quantile(confidence, combined_df(parts)) * math.sqrt(sum(variance for variance, _ in parts))
        half = (apart + together) / 2
        return estimate - half, estimate + half

    return limits


def difference_limits(a: float, limits_a: Limits, b: float, limits_b: Limits) -> Limits:
    """Limits of a - b for independent estimates, from the limits of each (MOVER)."""

    def limits(confidence: float) -> tuple[float, float]:
        (la, ua), (lb, ub) = limits_a(confidence), limits_b(confidence)
        return a - b - math.hypot(a - la, ub - b), a - b + math.hypot(ua - a, b - lb)

    return limits


def ratio_limits(a: float, limits_a: Limits, b: float, limits_b: Limits) -> Limits:
    """Limits of a / b for independent positive estimates (MOVER on the logarithm); 0 and infinity where a limit is 0."""

    def log_distance(inner: float, outer: float) -> float:
        return abs(math.log(outer / inner)) if inner > 0 and outer > 0 else math.inf

    def limits(confidence: float) -> tuple[float, float]:
        if b <= 0:
            return math.nan, math.nan
        (la, ua), (lb, ub) = limits_a(confidence), limits_b(confidence)
        if a <= 0:
            return 0.0, ua / lb if lb > 0 else math.inf
        low = math.hypot(log_distance(a, la), log_distance(b, ub))
        high = math.hypot(log_distance(a, ua), log_distance(b, lb))
        return a / b * math.exp(-low), a / b * math.exp(high)

    return limits


def hull(*parts: Limits) -> Limits:
    """The smallest interval that holds all the given ones."""

    def limits(confidence: float) -> tuple[float, float]:
        pairs = [part(confidence) for part in parts]
        return min(low for low, _ in pairs), max(high for _, high in pairs)

    return limits


def p_value(limits: Limits, estimate: float, null: float = 0.0) -> float:
    """The two-sided p of `null`: one minus the largest confidence at which the interval leaves it out."""
    if estimate == null:
        return 1.0

    def gap(log_p: float) -> float:
        low, high = limits(1 - math.exp(log_p))
        return low - null if estimate > null else null - high

    bottom, top = math.log(SMALLEST_P), 0.0
    if gap(bottom) >= 0:
        return SMALLEST_P
    for _ in range(60):
        middle = (bottom + top) / 2
        bottom, top = (bottom, middle) if gap(middle) >= 0 else (middle, top)
    return math.exp((bottom + top) / 2)


def equivalence_p(limits: Limits, estimate: float, margin: float) -> float:
    """The p of TOST, the null being that the truth lies at or beyond plus or minus `margin`; 1 when the estimate does."""
    if abs(estimate) >= margin:
        return 1.0
    return max(p_value(limits, estimate, margin), p_value(limits, estimate, -margin)) / 2


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment; NaN stays NaN and does not count."""
    known = [i for i, p in enumerate(ps) if not math.isnan(p)]
    adjusted = [math.nan] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def combined_df(parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances, from (variance, degrees of freedom) pairs."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts if variance > 0 and not math.isinf(df))
    return total**2 / spread if spread > 0 else math.inf


def paired_limits(differences: Floats) -> Limits:
    """Limits of the mean of paired differences that lie in [-1, 1]: Student's t.

    Where fewer than `DIFFER` pairs differ at all, their spread says too little: then the two imagined pairs of Bonett and Price
    (one at +1, one at -1) are added, with a weight that goes from 1 (no pair differs) to 0.
    """
    n = len(differences)
    weight = max(0.0, 1 - int((differences != 0).sum()) / DIFFER)
    size = n + 2 * weight
    mean, estimate = float(differences.sum()) / size, float(differences.mean())
    squares = float((differences**2).sum()) + 2 * weight - size * mean**2
    shifted = t_limits(mean, math.sqrt(max(squares, 0.0) / (size - 1) / size), max(1, n - 1))

    def limits(confidence: float) -> tuple[float, float]:
        low, high = shifted(confidence)
        return min(low, estimate), max(high, estimate)

    return limits
