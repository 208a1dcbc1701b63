"""Conditions by arms: a number in every field, on a scale that does not depend on the numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from msm_bench.report.figures.draw import MUTED, NARROW, data, label_axis
from msm_bench.report.text import wrapped

_LIGHT, _DARK = "#eef3f8", "#0a4a80"
_ON_LIGHT, _ON_DARK = "#14181c", "#fbfcfd"


@dataclass(frozen=True)
class Field:
    """One field; `value` None where nothing was scored."""

    row: str
    column: str
    value: float | None


def heat(
    fields: Sequence[Field], rows: Sequence[str], columns: Sequence[str], domain: tuple[float, float], width: int
) -> alt.TopLevelMixin:
    """The fields with `rows` downwards and `columns` across. Fields that are not given stay empty."""
    wide = width > NARROW
    names, letters = (190, 30) if wide else (104, 16)
    side = min(84, max(34, (width - names - 24) // max(1, len(columns))))
    row_names = {row: wrapped(row, letters, 2) for row in rows}
    column_names = {column: wrapped(column, 16 if wide else 13, 3) for column in columns}
    level = max(column_names.values(), key=len) if column_names else ""
    flat = all(len(line) * 7 <= side for name in column_names.values() for line in name.split("\n"))
    placed = [
        {"row": row_names[each.row], "column": column_names[each.column], "value": each.value, "text": f"{each.value:.2f}"}
        for each in fields
        if each.value is not None
    ]
    empty = [{"row": row_names[each.row], "column": column_names[each.column]} for each in fields if each.value is None]
    across = alt.Axis(
        title=None, orient="top", ticks=False, domain=False, labelExpr="split(datum.label, '\\n')",
        labelAngle=0 if flat else -90, labelAlign="center" if flat else "left", labelBaseline="bottom" if flat else "middle",
        labelLimit=170, labelPadding=6 + (14 * level.count("\n") if flat else 0),
    )  # fmt: skip
    x = alt.X("column:N", sort=None, scale=alt.Scale(domain=list(column_names.values()), paddingInner=0.04), axis=across)
    y = alt.Y("row:N", sort=None, scale=alt.Scale(domain=list(row_names.values()), paddingInner=0.06), axis=label_axis(names))
    scale = alt.Scale(domain=list(domain), range=[_LIGHT, _DARK], clamp=True)
    middle = domain[0] + 0.58 * (domain[1] - domain[0])
    fill = alt.Color("value:Q", scale=scale, legend=None)
    letters_on = alt.condition(f"datum.value > {middle}", alt.value(_ON_DARK), alt.value(_ON_LIGHT))
    boxes = alt.Chart(data(placed)).mark_rect(cornerRadius=2).encode(x=x, y=y, color=fill)
    texts = alt.Chart(data(placed)).mark_text(fontSize=11).encode(x=x, y=y, text="text:N", color=letters_on)
    holes = alt.Chart(data(empty)).mark_text(text="—", color=MUTED).encode(x=x, y=y)
    height = len(rows) * (20 if all("\n" not in name for name in row_names.values()) else 31)
    return alt.layer(boxes, texts, holes).properties(width=side * len(columns), height=height)
