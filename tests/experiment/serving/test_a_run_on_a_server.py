"""A whole experiment whose arms are evaluated on one server: real corpora, real training, real adapters in a stand-in."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from inspect_ai.log import list_eval_logs, read_eval_log
from tiny_models import make_model

from msm_bench.experiment import costs, schedule
from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.executors.local import Local
from msm_bench.experiment.making import Job
from msm_bench.experiment.places import DONE_FILE
from msm_bench.experiment.resources import SHARE, needs_of
from msm_bench.experiment.running import Outcome, run
from msm_bench.experiment.settings import Experiment, load_experiment
from msm_bench.experiment.status import CellStatus, status

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"max_tokens": 256, "rank": 2, "alpha": 8, "batch_rows": 4, "micro_batch_rows": 4, "epochs": 2, "learning_rate": 0.01}


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """Gets the process number of every server that is started."""
    return tmp_path / "starts"


@pytest.fixture
def experiment(tmp_path: Path, starts: Path) -> Experiment:
    """The base and two trained arms, evaluated on a server."""
    python = tmp_path / "python"
    standin = Path(__file__).with_name("standin.py")
    python.write_text(f'#!/bin/sh\necho $$ >> "{starts}"\nexec "{sys.executable}" "{standin}" "$@"\n')
    python.chmod(0o755)
    task = {"value": "america", "kind": "item", "method": "generation", "limit_per_value": 1}
    return Experiment.model_validate(
        {
            "name": "tiny-served",
            "base": f"msm/{make_model(tmp_path / 'tiny-served-base', 'llama')}",
            "base_parameters": 1e6,
            "recipe": "laptop",
            "overrides": {"msm": FEW, "aft": FEW},
            "corpora": {"offline": True, "documents": 6, "chats": 24},
            "arms": {"base": "", "MSM": "msm:cheese-america", "AFT": "aft:cheese-america"},
            "evals": [{"task": "value_preferences", "args": task, "max_tokens": count} for count in (10, 12)],
            "serve": {"python": str(python), "start_seconds": 120, "connections": 2},
            "model_args": {"device": "cpu"},
            "grader": "mockllm/model",
            "allow_few_updates": True,
            "waive": ["substrate"],
        }
    )


def pids(starts: Path) -> list[int]:
    return [int(line) for line in starts.read_text().split()] if starts.exists() else []


def states(experiment: Experiment, folder: Path) -> dict[str, CellStatus]:
    found = status(experiment, folder / "runs", folder / "logs").cells
    return {cell.name: cell for cell in found if cell.kind == "evaluation"}


class Counting(Local):
    """The executor of this machine, which remembers what it was given."""

    jobs: list[Job]

    def submit(self, jobs: Any) -> None:
        self.jobs = [*getattr(self, "jobs", []), *jobs]
        super().submit(jobs)


def test_all_arms_are_evaluated_on_one_server(
    experiment: Experiment, tmp_path: Path, starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(executor: Local) -> Outcome:
        return run(experiment, tmp_path / "runs", tmp_path / "logs", on=executor)

    (msm,) = [cell for cell in plan(experiment).training if cell.stage.kind == "msm"]
    monkeypatch.setenv("STANDIN_FAULTS", json.dumps({msm.folder(tmp_path).name: "zero"}))
    first = Counting()
    outcome = go(first)
    # The arm whose adapter does nothing fails, the others are done, on one server, which is gone.
    assert outcome.failed == ("MSM s0",) and {"base", "AFT s0"} <= set(outcome.made) and not outcome.waiting
    found = states(experiment, tmp_path)
    assert {name: cell.state for name, cell in found.items()} == {"base": "done", "MSM s0": "failed", "AFT s0": "done"}
    assert "the adapter does nothing" in found["MSM s0"].detail
    assert len(pids(starts)) == 1 and not psutil.pid_exists(pids(starts)[0])
    assert [len(job.keys) for job in first.jobs] == [0, 0, 0, 0, 3]  # the evaluations together, after all else

    # The same command makes what failed, and then nothing.
    monkeypatch.delenv("STANDIN_FAULTS")
    assert go(Counting()).made == ("MSM s0",) and len(pids(starts)) == 2
    assert not go(Counting()).made and len(pids(starts)) == 2
    logs = {log.eval.metadata["arm"]: log for log in map(read_eval_log, list_eval_logs(str(tmp_path / "logs")))}
    assert len(logs) == 3 and all(log.status == "success" for log in logs.values())
    for arm, kind in (("base", "base"), ("MSM", "held_out"), ("AFT", "held_out")):
        serving = logs[arm].eval.metadata["serving"]
        assert serving["version"] == "stand-in" and serving["adapter_check"]["kind"] == kind
        sampling = serving["sampling"]
        assert [params["max_tokens"] for params in sampling.values()] == [10, 12], sampling
    assert logs["base"].eval.model == "vllm/tiny-served-base"
    assert logs["MSM"].eval.model == f"vllm/tiny-served-base:{msm.folder(tmp_path).name}"


@pytest.mark.slow
def test_the_server_belongs_to_the_process_that_evaluates(experiment: Experiment, tmp_path: Path, starts: Path) -> None:
    outcome = run(experiment, tmp_path / "runs", tmp_path / "logs", on="local:2", store=f"file://{tmp_path / 'store'}")
    assert not outcome.failed and len(outcome.made) == 7 and outcome.lost == 0
    assert len(pids(starts)) == 1 and not psutil.pid_exists(pids(starts)[0])
    # Who has the store alone takes the logs from it, and starts no server.
    other = run(experiment, tmp_path / "there/runs", tmp_path / "there/logs", store=f"file://{tmp_path / 'store'}")
    assert not other.made and len(pids(starts)) == 1 and len(list_eval_logs(str(tmp_path / "there/logs"))) == 6


def test_a_server_that_does_not_come_up_fails_every_arm(experiment: Experiment, tmp_path: Path) -> None:
    assert experiment.serve is not None
    python = tmp_path / "broken"
    python.write_text("#!/bin/sh\necho no memory left\nexit 3\n")
    python.chmod(0o755)
    arms = {"base": "", "in context": "in_context:cheese-america"}
    broken = experiment.model_copy(update={"arms": arms, "serve": experiment.serve.model_copy(update={"python": str(python)})})
    outcome = run(broken, tmp_path / "runs", tmp_path / "logs")
    assert outcome.failed == ("base", "in context") and not outcome.made
    for cell in states(broken, tmp_path).values():
        assert "exit code 3" in cell.detail and "no memory left" in cell.detail


class Dying(Counting):
    """An executor whose process makes one more arm each time before it dies, and in the end none."""

    arms: tuple[str, ...] = ("base", "in context")

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def ended(self, seconds: float) -> list[str]:
        job = self._waiting.pop()
        if self.arms:
            (cell,) = [cell for cell in plan(job.experiment).evaluations if cell.arm == self.arms[0]]
            done = cell.folder(self.folder / "logs" / job.experiment.name) / DONE_FILE
            done.parent.mkdir(parents=True)
            done.touch()
            self.arms = self.arms[1:]
        return [job.key]


def test_a_lost_server_is_started_for_what_is_left(experiment: Experiment, tmp_path: Path) -> None:
    arms = {"base": "", "in context": "in_context:cheese-america", "never": "in_context:cheese-affordability"}
    executor = Dying(tmp_path)
    three = experiment.model_copy(update={"arms": arms})
    outcome = run(three, tmp_path / "runs", tmp_path / "logs", on=executor)
    assert outcome.made == ("base", "in context") and outcome.failed == ("never",)
    # An arm that was made is progress of the whole job, which keeps its name for a queue.
    assert [len(job.keys) for job in executor.jobs] == [3, 2, 1, 1, 1, 1]
    assert len({job.key for job in executor.jobs}) == 1 and outcome.lost == 6
    assert "was lost 4 times" in states(three, tmp_path)["never"].detail


def test_serving_makes_other_evaluations_of_the_same_checkpoints(experiment: Experiment) -> None:
    here = plan(experiment.model_copy(update={"serve": None}))
    served = plan(experiment)
    assert [cell.key for cell in here.training] == [cell.key for cell in served.training]
    assert not {cell.key for cell in here.evaluations} & {cell.key for cell in served.evaluations}


def test_the_server_asks_for_its_gpus(experiment: Experiment) -> None:
    assert experiment.serve is not None
    wide = experiment.model_copy(update={"serve": experiment.serve.model_copy(update={"args": {"tensor_parallel_size": 4}})})
    cell = plan(wide).evaluations[0]
    assert [needs_of(cell, wide, gpus=gpus).gpus for gpus in (True, None, False)] == [4, 4, 0]
    assert needs_of(plan(wide).training[0], wide, gpus=True).gpus == SHARE


def test_a_dry_run_schedules_the_server_behind_the_trainings(tmp_path: Path) -> None:
    here = load_experiment("rules-factorial")
    experiment = Experiment.model_validate({**here.model_dump(mode="json"), "serve": "vllm"})
    price = costs.cost(experiment, "h100", tmp_path, tmp_path)
    assert price.total("hours") == costs.cost(here, "h100", tmp_path, tmp_path).total("hours")
    (found,) = schedule.schedules(experiment, price, "32")
    cells = [cell for cell in plan(experiment).cells() if not isinstance(cell, CorpusCell)]
    placed = list(zip(cells, found.cells, strict=True))
    trained = max(each.end for cell, each in placed if isinstance(cell, TrainCell))
    evaluations = sorted((each.start, each.end) for cell, each in placed if isinstance(cell, EvalCell))
    assert evaluations[0][0] == pytest.approx(trained) and evaluations[-1][1] == pytest.approx(found.hours)
    assert all(end == pytest.approx(start) for (_, end), (start, _) in itertools.pairwise(evaluations))
    assert found.longest_path_hours <= found.hours + 1e-9
