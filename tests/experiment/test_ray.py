"""Experiments on a Ray cluster that loses a node: the same results as here, and nothing made twice."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_nodes import TwoNodes
from traces import results, same, shrunk, trace

from msm_bench.experiment.executors.ray import Ray
from msm_bench.experiment.running import Outcome, run
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.status import status

TWO_ARMS = {"arms": {"base": "", "AFT": "aft:cheese-affordability"}, "contrasts": []}


def here(experiment: Experiment, folder: Path) -> Outcome:
    return run(experiment, folder / "runs", folder / "logs")


def on_ray(experiment: Experiment, folder: Path, say: Callable[[str], None] = print) -> Outcome:
    return run(experiment, folder / "runs", folder / "logs", on=Ray(), say=say)


@pytest.mark.slow
def test_a_run_goes_on_after_a_node_was_killed(model_folder: Callable[..., Path], two_nodes: TwoNodes, tmp_path: Path) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}", **TWO_ARMS)
    assert not here(experiment, tmp_path / "here").failed
    found: dict[str, str] = {}

    def kill(line: str) -> None:
        if "aft:" in line and "begins" in line and not found:
            time.sleep(2)
            found.update(trace(experiment, tmp_path / "ray"), killed="1")
            two_nodes.kill()

    outcome = on_ray(experiment, tmp_path / "ray", say=kill)
    assert found and not outcome.failed and not outcome.stopped
    assert same(results(experiment, tmp_path / "ray"), results(experiment, tmp_path / "here"))
    assert found.items() <= {**trace(experiment, tmp_path / "ray"), "killed": "1"}.items()
    assert status(experiment, tmp_path / "ray/runs", tmp_path / "ray/logs").counts == {"done": 4}
    # What a cluster made stands here, and what is missing is made here.
    again = here(experiment, tmp_path / "ray")
    assert not again.made and len(again.standing) == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_node_killed_at_a_random_moment_changes_nothing(
    number: int, model_folder: Callable[..., Path], two_nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}")
    reference = tmp_path_factory.getbasetemp() / "reference"
    if not reference.exists():
        since = time.monotonic()
        assert not here(experiment, reference).failed
        (reference / "seconds").write_text(str(time.monotonic() - since))
    folder = tmp_path_factory.mktemp("ray")
    after = random.Random(number).uniform(5, float((reference / "seconds").read_text()))
    found: dict[str, str] = {}

    def kill() -> None:
        found.update(trace(experiment, folder))
        two_nodes.kill()

    timer = threading.Timer(after, kill)
    timer.start()
    outcome = on_ray(experiment, folder)
    timer.join()
    assert not outcome.failed and not outcome.stopped
    assert same(results(experiment, folder), results(experiment, reference))
    whole = trace(experiment, folder)
    twice = {name for name in found if whole.get(name) != found[name]}
    there = f"{len(found)} of {len(whole)} pieces of work there"
    print(f"killed after {after:.0f} s: {there}, {outcome.lost} tasks lost, {len(twice)} made twice", flush=True)
    assert not twice
