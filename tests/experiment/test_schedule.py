"""What cells ask for, and the schedule that follows."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_bench.errors import RequestError
from msm_bench.experiment import costs
from msm_bench.experiment.arms import Arm, Stage
from msm_bench.experiment.cells import EvalCell, TrainCell, plan
from msm_bench.experiment.places import Cell, needs
from msm_bench.experiment.resources import SHARE, needs_of
from msm_bench.experiment.schedule import list_schedule, longest_ways, schedules
from msm_bench.experiment.settings import Experiment, load_experiment


def chain(name: str, length: int) -> list[Cell]:
    """Trainings on top of each other, and an evaluation of the last."""
    cells: list[Cell] = []
    parent: TrainCell | None = None
    for number in range(length):
        parent = TrainCell(Stage(kind="aft", source="x"), (), parent, 0, f"{name}{number}")
        cells.append(parent)
    return [*cells, EvalCell(name, Arm(), parent, 0, f"{name}-eval")]


@settings(deadline=None)
@given(st.data())
def test_a_schedule_keeps_order_and_room_and_is_never_far_from_the_best(data: st.DataObject) -> None:
    cells = [
        cell for number in range(data.draw(st.integers(1, 4))) for cell in chain(str(number), data.draw(st.integers(0, 3)))
    ]
    hours = {cell.key: data.draw(st.floats(0, 9)) for cell in cells}
    count = data.draw(st.sampled_from([1, 2, 8]))
    gpus = {cell.key: data.draw(st.integers(0, count)) for cell in cells}
    placed = list_schedule(cells, hours, gpus, count)
    assert set(placed) == set(hours)
    for cell in cells:
        start, end = placed[cell.key]
        assert end == start + hours[cell.key]
        assert all(placed[need.key][1] <= start for need in needs(cell))
        at_start = [key for key, (begun, over) in placed.items() if begun <= start < over]
        assert sum(gpus[key] for key in at_start) <= count
    makespan = max(end for _, end in placed.values())
    work = sum(hours[key] * gpus[key] for key in hours)
    longest = max(longest_ways(cells, hours).values())
    assert makespan >= max(longest, work / count) - 1e-9
    assert makespan <= sum(hours.values()) + 1e-9


def test_one_gpu_is_one_after_the_other_and_many_are_the_longest_way() -> None:
    cells = [*chain("a", 2), *chain("b", 1)]
    hours = {cell.key: 1.0 for cell in cells}
    gpus = dict.fromkeys(hours, 1)
    assert max(end for _, end in list_schedule(cells, hours, gpus, 1).values()) == 5
    assert max(end for _, end in list_schedule(cells, hours, gpus, 8).values()) == 3
    assert list_schedule(cells, hours, gpus, 1)["a0"] == (0.0, 1.0)  # the longest way first


def test_the_factorial_gains_until_its_longest_way(tmp_path: Path) -> None:
    experiment = load_experiment("rules-factorial")
    found = schedules(experiment, costs.cost(experiment, "h100", tmp_path, tmp_path), "8,32,128")
    assert [each.gpus for each in found] == [8, 32, 128]
    assert found[0].hours > found[1].hours >= found[2].hours >= found[2].longest_path_hours - 1e-9
    assert found[0].utilisation > found[1].utilisation > found[2].utilisation > 0
    for each in found:
        assert each.gpu_hours == pytest.approx(found[0].gpu_hours) and 0 <= each.tail_hours <= each.hours
        assert bool(each.tail) == (each.tail_hours > 0)
        assert each.utilisation == pytest.approx(sum(c.gpus * (c.end - c.start) for c in each.cells) / each.gpus / each.hours)


@pytest.mark.parametrize(("gpus", "says"), [("8,x", "no numbers"), ("0", "no numbers"), ("1", "needs 2 GPUs")])
def test_a_wrong_count_is_told(gpus: str, says: str, tmp_path: Path) -> None:
    experiment = load_experiment("rules-factorial")
    with pytest.raises(RequestError, match=says):
        schedules(experiment, costs.cost(experiment, "h100", tmp_path, tmp_path), gpus)


@pytest.mark.parametrize(
    ("parameters", "training", "evaluation"), [(0.135e9, 0, 0), (8.2e9, 1, 1), (32.8e9, 2, 1), (72e9, 8, 4)]
)
def test_cells_ask_for_gpus_by_the_size_of_the_base(parameters: float, training: int, evaluation: int) -> None:
    experiment = load_experiment("philosophy-32b").model_copy(update={"base_parameters": parameters})
    made = plan(experiment)
    asked = needs_of(made.training[0], experiment, gpus=None)
    assert asked.gpus == training and asked.accelerate == (f"gpu-{training}" if training > 1 else None)
    assert needs_of(made.evaluations[-1], experiment, gpus=None).gpus == evaluation
    assert needs_of(made.corpora[0], experiment, gpus=True).gpus == 0
    assert needs_of(made.training[0], experiment, gpus=True).gpus == (training or SHARE)
    alone = needs_of(made.training[0], experiment, gpus=False)
    assert alone.gpus == 0 and alone.accelerate is None


def test_what_the_file_asks_for_comes_first(tmp_path: Path) -> None:
    whole = load_experiment("philosophy-32b").model_dump(mode="json")
    asked = {"training": {"gpus": 8, "accelerate": "gpu-8", "hours": 6}, "evaluation": {"gpus": 2}}
    experiment = Experiment.model_validate({**whole, "resources": asked})
    cell = plan(experiment).training[0]
    assert needs_of(cell, experiment, gpus=True).model_dump() == {
        "gpus": 8,
        "cpus": 32,
        "memory_gb": pytest.approx(83.9),
        "hours": 6,
        "accelerate": "gpu-8",
    }
    assert needs_of(plan(experiment).evaluations[0], experiment, gpus=True).gpus == 2
    # What is asked for decides where a cell is made, never which cell it is.
    assert [cell.key for cell in plan(experiment).cells()] == [
        cell.key for cell in plan(load_experiment("philosophy-32b")).cells()
    ]
