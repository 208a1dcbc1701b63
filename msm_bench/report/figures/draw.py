"""The theme of all figures, and drawing: the same description gives the same bytes with the same version of vl-convert.

Labels are set in Liberation Sans, which vl-convert carries with it, so a machine's own fonts change nothing. A figure has two
widths: one for files and wide screens, one that a phone can show without shrinking the letters.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from msm_bench.report.text import visible

WIDE, NARROW = 760, 340
"""Pixels of the two widths."""
INK, MUTED, LINE, ACCENT, PAPER = "#1a1d21", "#5c6570", "#dde1e6", "#0b62a4", "#b3541e"
"""Letters, secondary letters, grid, own measurements, published numbers. A page swaps them for its colours of the dark mode."""
SERIES = ("#0b62a4", "#c8501e", "#00805e", "#a2559a", "#8a6a00", "#2f8fbf", "#6d6f73", "#b0234a")
"""Colours of curves and parts, apart also for the colour-blind; after the last they begin again with other shapes."""
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
Panelled = alt.LayerChart | alt.FacetChart
_VEGALITE = "6.4"
_SCALE = 2
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}


@dataclass(frozen=True)
class Figure:
    """One figure: `name` (of its files), title, what it shows in words, and the chart by its width in pixels."""

    name: str
    title: str
    caption: str
    chart: Callable[[int], alt.TopLevelMixin]


@dataclass(frozen=True)
class Drawn:
    """A figure as files (`svg`, `png`, `vega`: its Vega-Lite description) and for pages (`wide`, `narrow`: SVG elements)."""

    figure: Figure
    svg: str
    png: bytes
    vega: str
    wide: str
    narrow: str


def draw(figure: Figure) -> Drawn:
    """Draws a figure: SVG on white at the wide width, the same as PNG at twice its size, and both widths for a page."""
    described = _described(figure, WIDE)
    wide, narrow = _svg(described), _svg(_described(figure, NARROW))
    return Drawn(
        figure=figure,
        svg=wide,
        png=vl_convert.svg_to_png(wide, scale=_SCALE),
        vega=json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n",
        wide=_inline(wide, f"{figure.name}-wide-"),
        narrow=_inline(narrow, f"{figure.name}-narrow-"),
    )


def _described(figure: Figure, width: int) -> dict[str, Any]:
    """The Vega-Lite description with the theme in it."""
    # Altair's own check of the schema takes longer than the drawing, which fails as well on what does not fit.
    described: dict[str, Any] = _shown(figure.chart(width).to_dict(validate=False))
    return {**described, "config": _config(), "background": "#ffffff", "padding": 6}


def _shown(part: Any) -> Any:
    """A description with visible characters only: one that XML does not have ends the whole process in the renderer."""
    if isinstance(part, dict):
        return {_shown(name): _shown(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_shown(value) for value in part]
    return visible(part) if isinstance(part, str) else part


def _svg(described: dict[str, Any]) -> str:
    drawn: str = vl_convert.vegalite_to_svg(described, vl_version=_VEGALITE)
    return drawn + "\n"


def _inline(drawn: str, prefix: str) -> str:
    """A drawn SVG as an element of a page: transparent, its colours the page's variables, its ids its own."""
    drawn = re.sub(r'(<svg[^>]*>)<rect width="[\d.]+" height="[\d.]+" fill="#ffffff"\s*/>', r"\1", drawn.strip(), count=1)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(f'"{colour}"', f'"var({variable})"')
    drawn = re.sub(r'\bid="', f'id="{prefix}', drawn)
    return re.sub(r"url\(#", f"url(#{prefix}", drawn)


def data(rows: list[dict[str, Any]]) -> alt.Data:
    """Rows as a chart's data, inside its description."""
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def label_axis(width: int) -> alt.Axis:
    """An axis of names, of fixed width, whose line breaks (see `text.wrapped`) are kept."""
    split = "split(datum.label, '\\n')"
    return alt.Axis(
        title=None, labelExpr=split, labelLimit=width, minExtent=width, maxExtent=width, ticks=False, domain=False
    )  # fmt: skip


def label_width(width: int) -> int:
    """Pixels that names of arms get."""
    return 190 if width > NARROW else 108


def label_letters(width: int) -> int:
    """Letters of a name that fit into a line of `label_width`."""
    return 32 if width > NARROW else 17


def _config() -> dict[str, Any]:
    return {
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": INK, "titleColor": MUTED, "gridColor": LINE, "domainColor": LINE, "tickColor": LINE,
            "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelLineHeight": 14,
        },
        "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 320},
        "title": {"color": INK, "fontSize": 13, "fontWeight": "bold", "anchor": "start", "frame": "group", "offset": 6},
        "header": {"labelColor": INK, "titleColor": MUTED},
        "concat": {"spacing": 18},
    }  # fmt: skip
