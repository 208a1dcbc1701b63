"""Curves over the tokens of training: once over those of fine-tuning, as the paper counts, once over all."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from msm_bench.report.figures.draw import MUTED, NARROW, SERIES, Panelled, data
from msm_bench.report.text import wrapped

_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


@dataclass(frozen=True)
class Point:
    """One arm: its curve, its tokens, its value with the interval."""

    series: str
    tokens: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Level:
    """An arm without tokens of this kind: a line across."""

    name: str
    value: float


def dose(
    panels: Sequence[tuple[str, Sequence[Point], Sequence[Level]]], key: str, domain: tuple[float, float], width: int
) -> alt.TopLevelMixin:
    """A panel for each (title of the x axis, points, levels). Tokens on a logarithmic axis, the value from end to end."""
    names = sorted({point.series for _, points, _ in panels for point in points})
    side = width - 74 if width <= NARROW else (width - 150) // len(panels)
    charts = [_panel(title, points, levels, names, key, domain, side, width) for title, points, levels in panels]
    return (alt.vconcat if width <= NARROW else alt.hconcat)(*charts, spacing=24)


def _panel(
    title: str,
    points: Sequence[Point],
    levels: Sequence[Level],
    names: list[str],
    key: str,
    domain: tuple[float, float],
    side: int,
    whole: int,
) -> Panelled:
    counts = [point.tokens for point in points]
    x = alt.X(
        "tokens:Q",
        scale=alt.Scale(type="log", domain=[min(counts) / 1.6, max(counts) * 1.6], nice=False),
        axis=alt.Axis(title=title, format="~s", values=_ticks(min(counts) / 1.6, max(counts) * 1.6), grid=True),
    )
    y = alt.Y("value:Q", scale=alt.Scale(domain=list(domain), nice=False), axis=alt.Axis(title=key, tickCount=5))
    labels = {name: wrapped(name, 40 if whole > NARROW else 30, 2).replace("\n", " ") for name in names}
    shown = list(labels.values())
    colour = alt.Color(
        "series:N",
        scale=alt.Scale(domain=shown, range=[SERIES[n % len(SERIES)] for n in range(len(shown))]),
        legend=alt.Legend(title=None, orient="bottom", columns=1, symbolType="circle"),
    )
    shape = alt.Shape(
        "series:N", scale=alt.Scale(domain=shown, range=[_SHAPES[n % len(_SHAPES)] for n in range(len(shown))]), legend=None
    )
    rows = [
        {"series": labels[p.series], "tokens": p.tokens, "value": p.value, "low": p.low, "high": p.high}
        for p in sorted(points, key=lambda p: (p.series, p.tokens))
    ]
    spans = [row for row in rows if row["low"] is not None]
    by_height = sorted(levels, key=lambda one: one.value)
    # The lower of two lines that lie close together has its name under it, so that the names do not cover each other.
    close = 0.07 * (domain[1] - domain[0])
    low_names = [one for one, above in itertools.pairwise(by_height) if above.value - one.value < close]
    across, under = (
        [{"value": one.value, "name": wrapped(one.name, 28, 1)} for one in group] for group in (by_height, low_names)
    )
    over = [one for one in across if one not in under]
    low = alt.Y("low:Q", scale=alt.Scale(domain=list(domain), nice=False))
    return alt.layer(
        alt.Chart(data(across)).mark_rule(color=MUTED, strokeDash=[4, 3]).encode(y=y),
        *(
            alt.Chart(data(named)).mark_text(align="left", x=4, dy=dy, color=MUTED, fontSize=11).encode(y=y, text="name:N")
            for named, dy in ((over, -6), (under, 9))
            if named
        ),
        alt.Chart(data(spans)).mark_rule(strokeWidth=2, opacity=0.5).encode(x=x, y=low, y2="high:Q", color=colour),
        alt.Chart(data(rows)).mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour),
        alt.Chart(data(rows)).mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
    ).properties(width=side, height=240)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the ends; the powers alone where that would be more than eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    return ticks if len(ticks) <= 8 else [tick for tick in ticks if math.log10(tick) % 1 == 0]
