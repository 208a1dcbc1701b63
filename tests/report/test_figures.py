"""Figures by themselves: what they hold, that they are safe, and that drawing again gives the same bytes."""

import re
import xml.etree.ElementTree as tree

import pytest

from msm_bench.report.figures.bars import BarPanel, Part, bars
from msm_bench.report.figures.dose import Level, Point, dose
from msm_bench.report.figures.dots import Dot, Panel, dots
from msm_bench.report.figures.draw import ACCENT, FONT, NARROW, Drawn, Figure, draw
from msm_bench.report.figures.forest import Line, forest
from msm_bench.report.figures.heat import Field, heat

EVIL = "</text><script>alert(1)</script> \"x' & \x1b\u202e"
ARMS = ("base", EVIL)


def charts() -> dict[str, Figure]:
    panel = Panel(EVIL, (0.0, 1.0), (Dot("base", 0.5, 0.4, 0.6, 0.3, 0.7, (0.68,)), Dot(EVIL, hole=EVIL)))
    parts = tuple(Part(arm, part, 2.0) for arm in ARMS for part in (EVIL, "judge_refused"))
    fields = [Field(f"{EVIL}{n}", arm, None if n else 0.5) for n in range(3) for arm in ARMS]
    points = [Point(EVIL, 1e6, 0.5, 0.4, 0.6), Point(EVIL, 1e7, 0.3, 0.2, 0.4), Point("aft", 1e6, 0.6, None, None)]
    lines = [Line(EVIL, -0.2, -0.3, -0.1, True), Line("b", 0.0, -0.1, 0.1, False, published=True)]
    made = {
        "dots": lambda width: dots([panel, panel], width, 2 if width > NARROW else 1),
        "heat": lambda width: heat(fields, [f"{EVIL}{n}" for n in range(3)], ARMS, (0.0, 1.0), width),
        "forest": lambda width: forest([(EVIL, lines)], width),
        "dose": lambda width: dose([("tokens", points, [Level(EVIL, 0.7)])] * 2, "decided", (0.0, 1.0), width),
        "bars": lambda width: bars([BarPanel(EVIL, "share", ".0%", parts, ARMS, 0.02, 0.05)], width),
    }
    return {name: Figure(name, name, "", chart) for name, chart in made.items()}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawn]:
    return {name: draw(figure) for name, figure in charts().items()}


@pytest.mark.parametrize("name", ["dots", "heat", "forest", "dose", "bars"])
def test_a_figure_is_sound_and_safe(drawn: dict[str, Drawn], name: str) -> None:
    figure = drawn[name]
    for text in (figure.svg, figure.wide, figure.narrow):
        root = tree.fromstring(text)
        assert {element.tag.split("}")[1] for element in root.iter()} <= {
            "svg",
            "g",
            "path",
            "text",
            "tspan",
            "rect",
            "line",
            "defs",
            "clipPath",
        }
        assert not any(key.startswith("on") or key.endswith("href") for element in root.iter() for key in element.attrib)
        shown = "".join(root.itertext())
        assert "\x1b" not in shown and "\u202e" not in shown
    for width, text in ((760, figure.wide), (350, figure.narrow)):
        assert float(re.search(r'width="([\d.]+)"', text)[1]) <= width + 60
    assert 'fill="#ffffff"' in figure.svg.split("<g")[0] and "#ffffff" not in figure.wide.split("<g")[0]
    assert ACCENT not in figure.wide or name in ("dose", "bars")
    assert figure.png.startswith(b"\x89PNG") and FONT.split(",")[0] in figure.svg


def test_drawing_again_gives_the_same_bytes(drawn: dict[str, Drawn]) -> None:
    for name, figure in charts().items():
        again = draw(figure)
        assert (again.svg, again.png, again.vega, again.narrow) == (
            drawn[name].svg, drawn[name].png, drawn[name].vega, drawn[name].narrow,
        )  # fmt: skip


def test_a_missing_number_is_written_and_never_drawn_as_zero(drawn: dict[str, Drawn]) -> None:
    points = [mark for mark in re.findall(r'aria-roledescription="point"', drawn["dots"].svg)]
    # Two panels, each with one measured arm and one published number; the arm without a log has no mark.
    assert len(points) == 4
    assert drawn["heat"].svg.count(">—<") == 4 and drawn["heat"].svg.count(">0.50<") == 2


def test_altair_accepts_every_description() -> None:
    for figure in charts().values():
        for width in (760, NARROW):
            assert figure.chart(width).to_dict()["$schema"]
