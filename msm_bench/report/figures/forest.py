"""Contrasts: the difference with its interval around zero, a panel a task and key."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from msm_bench.report.figures.draw import ACCENT, INK, MUTED, NARROW, PAPER, Panelled, data, label_axis, label_letters
from msm_bench.report.text import wrapped


@dataclass(frozen=True)
class Line:
    """One contrast. `shown`: its p, adjusted over the declared ones, is below .05. `published`: b is a printed number."""

    name: str
    difference: float
    low: float
    high: float
    shown: bool
    published: bool = False


def forest(panels: Sequence[tuple[str, Sequence[Line]]], width: int) -> alt.TopLevelMixin:
    """A panel for each (title, lines), one under the other, each with its own axis that holds zero."""
    charts = [_panel(title, lines, width) for title, lines in panels]
    return alt.vconcat(*charts, spacing=20) if len(charts) > 1 else charts[0]


def _panel(title: str, lines: Sequence[Line], width: int) -> Panelled:
    names = 260 if width > NARROW else 130
    letters = 42 if width > NARROW else label_letters(width) + 4
    labels = [wrapped(line.name, letters, 4) for line in lines]
    rows = [
        {
            "name": label,
            "value": line.difference,
            "low": line.low,
            "high": line.high,
            "weight": 1.0 if line.shown or line.published else 0.45,
            "kind": "published" if line.published else "own",
        }
        for label, line in zip(labels, lines, strict=True)
    ]
    deep = max(label.count("\n") for label in labels) + 1
    y = alt.Y("name:N", sort=None, scale=alt.Scale(domain=labels), axis=label_axis(names))
    ends = [0.0, *(line.low for line in lines), *(line.high for line in lines)]
    margin = 0.06 * (max(ends) - min(ends) or 1.0)
    scale = alt.Scale(domain=[min(ends) - margin, max(ends) + margin], nice=False)
    x = alt.X("value:Q", scale=scale, axis=alt.Axis(title="difference, a − b", tickCount=5, grid=True))
    strength = alt.Opacity("weight:Q", scale=None, legend=None)
    own, printed = [row for row in rows if row["kind"] == "own"], [row for row in rows if row["kind"] == "published"]
    zero = alt.Chart(data([{"value": 0}])).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(x=x)
    low = alt.X("low:Q", scale=scale)
    spans = alt.Chart(data(rows)).mark_rule(color=ACCENT, strokeWidth=3).encode(x=low, x2="high:Q", y=y, opacity=strength)
    points = alt.Chart(data(own)).mark_point(color=ACCENT, filled=True, size=62).encode(x=x, y=y, opacity=strength)
    hollow = (
        alt.Chart(data(printed))
        .mark_point(color=PAPER, shape="diamond", filled=False, size=85, strokeWidth=1.6)
        .encode(x=x, y=y)
    )
    shown = alt.TitleParams(text=wrapped(title, width // 8).split("\n"), color=INK, frame="bounds")
    return alt.layer(zero, spans, points, hollow).properties(
        width=width - names - 24, height=(9 + 14 * deep) * len(rows), title=shown
    )
