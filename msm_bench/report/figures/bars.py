"""Parts of a whole by arm: what became of the judge's questions, and what was spent."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from msm_bench.report.figures.draw import INK, MUTED, SERIES, Panelled, data, label_axis, label_letters, label_width
from msm_bench.report.text import wrapped


@dataclass(frozen=True)
class Part:
    """One part of an arm's bar."""

    arm: str
    part: str
    amount: float


@dataclass(frozen=True)
class BarPanel:
    """One panel: title, axis title, number format (D3), parts, arms in order, and a limit to mark."""

    title: str
    axis: str
    form: str
    parts: tuple[Part, ...]
    arms: tuple[str, ...]
    limit: float | None = None
    least: float = 0.0
    """The axis reaches at least to here."""


def bars(panels: Sequence[BarPanel], width: int) -> alt.TopLevelMixin:
    """The panels, one under the other, each with the legend of its own parts."""
    charts = [_panel(panel, width) for panel in panels]
    return alt.vconcat(*charts, spacing=22).resolve_scale(color="independent") if len(charts) > 1 else charts[0]


def _panel(panel: BarPanel, width: int) -> Panelled:
    labels = {arm: wrapped(arm, label_letters(width)) for arm in panel.arms}
    lines = max(label.count("\n") for label in labels.values()) + 1
    shown = {part.part: wrapped(part.part, 44, 1) for part in panel.parts}
    names = list(dict.fromkeys(shown.values()))
    rows = [
        {"arm": labels[part.arm], "part": shown[part.part], "amount": part.amount, "order": names.index(shown[part.part])}
        for part in panel.parts
        if part.amount
    ]
    sums = [sum(part.amount for part in panel.parts if part.arm == arm) for arm in panel.arms]
    top = max(panel.least, 1.04 * max(sums, default=0.0)) or 1.0
    y = alt.Y(
        "arm:N",
        sort=None,
        scale=alt.Scale(domain=list(labels.values()), paddingInner=0.35),
        axis=label_axis(label_width(width)),
    )
    scale = alt.Scale(domain=[0, top], nice=False)
    x = alt.X("amount:Q", stack="zero", scale=scale, axis=alt.Axis(title=panel.axis, format=panel.form, tickCount=4))
    colour = alt.Color(
        "part:N",
        scale=alt.Scale(domain=names, range=[SERIES[n % len(SERIES)] for n in range(len(names))]),
        legend=alt.Legend(title=None, orient="bottom", columns=1 if width < 500 else 2) if names else None,
    )
    layers: list[alt.Chart] = [alt.Chart(data(rows)).mark_bar().encode(x=x, y=y, color=colour, order="order:Q")]
    if panel.limit is not None:
        mark = alt.Chart(data([{"amount": panel.limit}])).mark_rule(color=MUTED, strokeDash=[3, 3])
        layers.append(mark.encode(x=alt.X("amount:Q", scale=scale)))
    title = alt.TitleParams(text=wrapped(panel.title, width // 8).split("\n"), color=INK, frame="bounds")
    height = (9 + 14 * lines) * len(panel.arms)
    return alt.layer(*layers).properties(width=width - label_width(width) - 24, height=height, title=title)
