"""Arms with their intervals: a row an arm, a panel a key (or value, or pattern)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from msm_bench.report.figures.draw import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    PAPER,
    Panelled,
    data,
    label_axis,
    label_letters,
    label_width,
)
from msm_bench.report.text import wrapped


@dataclass(frozen=True)
class Dot:
    """One arm in a panel. `hole` says why there is no number; `published` are the numbers that others printed for it."""

    arm: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    new_low: float | None = None
    new_high: float | None = None
    published: tuple[float, ...] = ()
    hole: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: its title, the ends of its axis, and a dot an arm."""

    title: str
    domain: tuple[float, float]
    dots: tuple[Dot, ...]


def dots(panels: Sequence[Panel], width: int, columns: int = 1) -> alt.TopLevelMixin:
    """The panels in a grid of so many columns. Every panel has the same arms in the same order."""
    columns = min(columns, len(panels))
    names, inner = label_width(width), width - label_width(width) - 24
    each = (inner - 18 * (columns - 1)) // columns
    rows = []
    for start in range(0, len(panels), columns):
        line = panels[start : start + columns]
        charts = [_panel(panel, each, names if number == 0 else 0, width, columns) for number, panel in enumerate(line)]
        rows.append(alt.hconcat(*charts, spacing=18) if len(charts) > 1 else charts[0])
    return alt.vconcat(*rows, spacing=14) if len(rows) > 1 else rows[0]


def _panel(panel: Panel, width: int, names: int, whole: int, columns: int) -> Panelled:
    labels = {dot.arm: wrapped(dot.arm, label_letters(whole)) for dot in panel.dots}
    lines = max(label.count("\n") for label in labels.values()) + 1
    low, high = panel.domain
    scale = alt.Scale(domain=[low, high], nice=False, clamp=True)
    axis = (
        label_axis(names) if names else alt.Axis(title=None, labels=False, ticks=False, domain=False, minExtent=0, maxExtent=0)
    )
    y = alt.Y("arm:N", sort=list(labels.values()), axis=axis, scale=alt.Scale(domain=list(labels.values())))
    x = alt.X("value:Q", scale=scale, axis=alt.Axis(title=None, tickCount=5 if width < 400 else 10, grid=True))

    def layer(rows: list[dict[str, Any]]) -> alt.Chart:
        return alt.Chart(data(rows))

    own = [dot for dot in panel.dots if dot.value is not None]
    wider = [_span(labels[dot.arm], dot.new_low, dot.new_high) for dot in own if dot.new_low is not None]
    spans = [_span(labels[dot.arm], dot.low, dot.high) for dot in own if dot.low is not None]
    points = [{"arm": labels[dot.arm], "value": dot.value} for dot in own]
    printed = [{"arm": labels[dot.arm], "value": value} for dot in panel.dots for value in dot.published]
    holes = [{"arm": labels[dot.arm], "value": low, "text": dot.hole} for dot in panel.dots if dot.value is None and dot.hole]
    layers: list[Any] = [
        layer(wider).mark_rule(color=ACCENT, strokeWidth=1, opacity=0.55).encode(x=x, x2="end:Q", y=y),
        layer(spans).mark_rule(color=ACCENT, strokeWidth=4, opacity=0.45).encode(x=x, x2="end:Q", y=y),
        layer(points).mark_point(color=ACCENT, filled=True, size=62, opacity=1).encode(x=x, y=y),
        layer(printed)
        .mark_point(color=PAPER, filled=False, shape="diamond", size=85, strokeWidth=1.6, opacity=1)
        .encode(x=x, y=y),
        layer(holes)
        .mark_text(align="left", dx=5, fontStyle="italic", color=MUTED, fontSize=11)
        .encode(x=x, y=y, text="text:N"),
    ]
    title = alt.TitleParams(
        text=wrapped(panel.title, max(16, width // 7)).split("\n"), color=INK, fontSize=13 if columns < 3 else 12
    )
    frame = alt.Chart(data([{"value": low}, {"value": high}])).mark_rule(color=LINE).encode(x=x)
    return alt.layer(frame, *layers).properties(width=width, height=(8 + 15 * lines) * len(panel.dots), title=title)


def _span(arm: str, low: float | None, high: float | None) -> dict[str, Any]:
    return {"arm": arm, "value": low, "end": high}
