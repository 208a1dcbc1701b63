"""What a dry run prints, as it is read in a terminal of 80 columns."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from msm_bench.experiment import costs, schedule
from msm_bench.experiment.settings import load_experiment, shipped


def printed(table: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


@pytest.mark.parametrize("name", shipped())
def test_a_price_can_be_read_at_80_columns(name: str, tmp_path: Path) -> None:
    found = costs.cost(load_experiment(name), "h100", tmp_path, tmp_path)
    text = printed(costs.render(found))
    head = next(line for line in text.splitlines() if "tokens" in line)
    assert head.split()[0] == "cell" and head.split()[-1] == "disk"
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    words = set(text.split())
    assert all(word in words for cell in found.cells for word in cell.name.split())
    # Nothing is cut off at the right: every line of numbers ends in a size.
    units = [line.split()[-1] for line in text.splitlines() if line.rstrip().endswith(("kB", "MB", "GB", "TB"))]
    assert len(units) == len(found.cells) + 1
    assert ("judge" in head) == any(cell.judge_calls for cell in found.cells)


def test_a_finished_cell_is_there_and_not_in_the_totals(tmp_path: Path) -> None:
    found = costs.cost(load_experiment("cheese-laptop"), "h100", tmp_path, tmp_path)
    cells = [cell.model_copy(update={"done": cell.kind != "evaluation"}) for cell in found.cells]
    text = printed(costs.render(found.model_copy(update={"cells": tuple(cells)})), 160)
    assert text.count("there") == sum(cell.done for cell in cells) and "corpora: — rows" in text
    total = next(line for line in text.splitlines() if "all that is missing" in line)
    assert total.split()[4:5] == ["404k"] and "evaluations: 978 rollouts" in text


@pytest.mark.parametrize("device", costs.load_rates().devices)
def test_every_cell_that_computes_pays_for_its_start(device: str, tmp_path: Path) -> None:
    rates = costs.load_rates()
    small = load_experiment("cheese-seeds").model_copy(update={"base_parameters": 1e3})
    large = small.model_copy(update={"base_parameters": 32e9})
    start, load = rates.devices[device].start_seconds, rates.devices[device].load_seconds
    for cheap, dear in zip(*(costs.cost(each, device, tmp_path, tmp_path).cells for each in (small, large)), strict=True):
        assert (cheap.hours is None) == (dear.hours is None) == (cheap.kind == "corpus")
        if cheap.hours is not None and dear.hours is not None:
            assert cheap.hours * 3600 == pytest.approx(start, rel=0.01)
            assert dear.hours * 3600 > start + 32 * load


@pytest.mark.parametrize(
    ("hours", "says"),
    [
        (0.0, "0 s"),
        (1e-5, "<1 s"),
        (0.0006, "2 s"),
        (0.02, "72 s"),
        (0.75, "45 min"),
        (2, "2 h"),
        (6.754, "6.75 h"),
        (1234.5, "1,234 h"),
    ],
)
def test_times_are_rounded_to_words(hours: float, says: str) -> None:
    assert costs.in_words(hours) == says


def test_schedules_can_be_read_at_80_columns(tmp_path: Path) -> None:
    experiment = load_experiment("rules-factorial")
    found = schedule.schedules(experiment, costs.cost(experiment, "h100", tmp_path, tmp_path), "8,32,128")
    text = printed(schedule.render(found))
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for each in found:
        assert any(line.split()[:1] == [str(each.gpus)] and f"{each.utilisation:.0%}" in line for line in text.splitlines())
