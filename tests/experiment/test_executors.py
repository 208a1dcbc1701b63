"""Processes of this machine, lost ones among them; machines that share nothing but a store; what a budget reads."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traces import results, same, shrunk, trace

from msm_bench.errors import MissingExtraError, RequestError, UnknownNameError, WorkError
from msm_bench.experiment import driving, making
from msm_bench.experiment.cells import plan
from msm_bench.experiment.executors.contract import executor_of
from msm_bench.experiment.executors.local import Local
from msm_bench.experiment.making import Job, make
from msm_bench.experiment.places import Places
from msm_bench.experiment.resources import SHARE, Needs
from msm_bench.experiment.running import run
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.spending import Spending
from msm_bench.experiment.status import status

ONE_ARM: dict[str, Any] = {"arms": {"AFT": "aft:cheese-affordability"}, "contrasts": []}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny(model_folder: Callable[..., Path]) -> Experiment:
    return shrunk(f"msm/{model_folder('llama')}", **ONE_ARM)


def job(experiment: Experiment, folder: Path, number: int, **changes: Any) -> Job:
    cell = list(plan(experiment).cells())[number]
    given: dict[str, Any] = {"root": "runs", "logs": "logs", "folder": str(folder), "stage": "any"}
    return Job(key=cell.key, name=cell.name, experiment=experiment, **{**given, **changes})


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(tiny: Experiment, tmp_path: Path) -> None:
    executor, killed = Local(2), []

    def kill(line: str) -> None:
        if "aft:" in line and "begins" in line and not killed:
            executor.submit = submit_and_kill  # type: ignore[method-assign]

    def submit_and_kill(jobs: Any) -> None:
        Local.submit(executor, jobs)
        executor._start()
        ((process, *_),) = executor._running.values()
        os.kill(process.pid, signal.SIGKILL)
        killed.append(process.pid)
        del executor.submit  # type: ignore[method-assign]

    outcome = run(tiny, tmp_path / "runs", tmp_path / "logs", on=executor, say=kill)
    assert killed and outcome.lost == 1 and len(outcome.made) == 3 and not outcome.failed
    assert not run(tiny, tmp_path / "here/runs", tmp_path / "here/logs").failed
    assert same(results(tiny, tmp_path), results(tiny, tmp_path / "here"))


class Running:
    """Stands for a process that runs until the test ends it."""

    def __init__(self) -> None:
        self.over: int | None = None

    def poll(self) -> int | None:
        return self.over


def test_small_cells_share_a_card_and_large_ones_wait_for_a_whole_one(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Job, str, Running]] = []

    def start(each: Job, **environment: str) -> Running:
        started.append((each, environment["CUDA_VISIBLE_DEVICES"], Running()))
        return started[-1][2]

    monkeypatch.setattr("msm_bench.experiment.executors.local._cards", lambda: ["0", "1"])
    monkeypatch.setattr("msm_bench.experiment.executors.local.worker.start", start)
    executor = Local(20)
    plain = job(tiny, tmp_path, 1)
    small = [plain.model_copy(update={"key": f"s{n}", "needs": Needs(gpus=SHARE)}) for n in range(17)]
    executor.submit([*small, plain.model_copy(update={"key": "large", "needs": Needs(gpus=2)})])
    assert executor.ended(0) == []
    cards = [card for _, card, _ in started]
    assert cards.count("0") == cards.count("1") == 8 and cards[:2] == ["0", "1"]
    for _, card, process in started:
        process.over = 0 if card == "0" else None
    assert len(executor.ended(0)) == 8 and executor.ended(0) == []
    assert [each.key for each, *_ in started[16:]] == ["s16"]  # the large one waits for both cards
    for _, _, process in started:
        process.over = 0
    executor.ended(0)
    executor.ended(0)
    assert started[-1][0].key == "large" and started[-1][1] == "0,1"
    with pytest.raises(RequestError, match="needs 3 GPUs, and this machine has 2"):
        executor.submit([plain.model_copy(update={"needs": Needs(gpus=3)})])


class Dying:
    """An executor whose processes all die."""

    gpus: bool | None = False
    slots: int | None = 1

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.dead: list[str] = []
        self.closed = False

    def submit(self, jobs: Any) -> None:
        self.keys += [each.key for each in jobs]
        self.dead = [each.key for each in jobs]

    def ended(self, seconds: float) -> list[str]:
        return self.dead

    def close(self) -> None:
        self.closed = True


def test_a_cell_that_is_always_lost_fails_in_the_end(tiny: Experiment, tmp_path: Path) -> None:
    executor = Dying()
    outcome = run(tiny, tmp_path / "runs", tmp_path / "logs", on=executor)
    assert outcome.failed == ("chats cheese-affordability",) and len(outcome.waiting) == 2 and executor.closed
    assert len(executor.keys) == driving.LOSSES + 1 == outcome.lost
    (failed,) = [cell for cell in status(tiny, tmp_path / "runs", tmp_path / "logs").cells if cell.state == "failed"]
    assert "was lost 4 times" in failed.detail


def test_machines_that_share_a_store_go_on_with_each_other(tiny: Experiment, tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"

    def machine(name: str) -> tuple[Path, Path]:
        return tmp_path / name / "runs", tmp_path / name / "logs"

    # A run is begun on one machine without a store, up to its corpus ...
    corpus = job(tiny, tmp_path, 0, root=str(machine("one")[0]), logs=str(machine("one")[1]))
    assert make(corpus)
    begun = trace(tiny, tmp_path / "one")
    # ... goes on with one, is half trained on a second machine, and is finished by a third.
    assert run(tiny, *machine("one"), store=store, on=Stopping()).stopped
    assert status(tiny, *machine("two"), store=store).counts == {"done": 1, "missing": 2}
    training = job(tiny, tmp_path, 1, root=str(machine("two")[0]), logs=str(machine("two")[1]), store=store)
    half_train(training, tiny, tmp_path / "two")
    (partial,) = [cell for cell in status(tiny, *machine("three"), store=store).cells if cell.state == "partial"]
    assert partial.detail == "2 updates"
    half = trace(tiny, tmp_path / "two")
    shutil.rmtree(tmp_path / "two")
    outcome = run(tiny, *machine("three"), store=store)
    assert len(outcome.made) == 2 and len(outcome.standing) == 1 and not outcome.failed
    assert status(tiny, *machine("four"), store=store).counts == {"done": 3}
    whole = trace(tiny, tmp_path / "three")
    assert {name: mark for name, mark in half.items() if "update" in name}.items() <= whole.items()
    assert len([name for name in half if "update" in name]) == 2 and begun.keys() <= whole.keys()
    # The first machine takes what the report needs.
    last = run(tiny, *machine("one"), store=store)
    assert not last.made and len(last.standing) == 3 and list(machine("one")[1].rglob("*.eval"))
    assert not run(tiny, tmp_path / "here/runs", tmp_path / "here/logs").failed
    assert same(results(tiny, tmp_path / "three"), results(tiny, tmp_path / "here"))


class Stopping(Dying):
    """An executor under which the run is interrupted at once."""

    def ended(self, seconds: float) -> list[str]:
        raise KeyboardInterrupt


def half_train(training: Job, experiment: Experiment, folder: Path) -> None:
    """Trains two updates of three, as on a machine that is then lost."""
    from transformers import TrainerCallback

    from msm_bench.trainers import fitting

    class Lost(BaseException):
        pass

    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            if state.global_step == 2:
                raise Lost

    def callbacks(fit: Any, path: Path) -> None:
        fit.add_callback(Stop())
        original(fit, path)

    original = fitting.run
    fitting.run = callbacks
    try:
        with pytest.raises(Lost):
            make(training)
    finally:
        fitting.run = original


def test_a_training_cell_that_asks_for_several_gpus_is_launched(
    tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("msm_bench.trainers.train", lambda *args, **more: given.update(more))
    monkeypatch.chdir(tmp_path)
    training = job(tiny, tmp_path, 1, needs=Needs(gpus=8, accelerate="gpu-8"))
    making._train(plan(tiny).training[0], training, Places.of(tiny, Path("runs"), Path("logs")))
    assert given["accelerate"] == "gpu-8"


@pytest.mark.slow
def test_a_launched_training_is_a_cell_like_any_other(tiny: Experiment, tmp_path: Path) -> None:
    asked = {"training": {"accelerate": "cpu-2"}}
    launched = Experiment.model_validate({**tiny.model_dump(mode="json"), "resources": asked})
    few = {name: {**settings, "micro_batch_rows": 2} for name, settings in launched.overrides.items()}
    launched = launched.model_copy(update={"overrides": few})
    assert not run(launched, tmp_path / "runs", tmp_path / "logs", on="local:2").failed
    (checkpoint,) = (tmp_path / "runs" / "checkpoints").glob("aft-*/checkpoint.json")
    assert '"processes": 2.0' in checkpoint.read_text()


def test_a_budget_reads_each_log_once(tiny: Experiment, tmp_path: Path) -> None:
    base = tiny.model_copy(update={"arms": {"base": ""}})
    assert not run(base, tmp_path / "runs", tmp_path / "logs").failed
    spending = Spending(plan(base), Places.of(base, tmp_path / "runs", tmp_path / "logs"))
    assert spending.dollars() == spending.dollars() == 0.0 and spending.reads == 1
    (log,) = (tmp_path / "logs").rglob("*.eval")
    os.utime(log, ns=(1, 1))
    assert spending.dollars() == 0.0 and spending.reads == 2


@pytest.mark.parametrize(("on", "error"), [("cloud", UnknownNameError), ("local:0", RequestError), ("local:x", RequestError)])
def test_a_wrong_executor_is_told(on: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        executor_of(on)


@pytest.mark.parametrize(("on", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_names_its_extra(on: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"msm-bench\[{on}\]"):
        executor_of(on)


def test_a_ray_cluster_that_is_not_there_is_said_at_once() -> None:
    pytest.importorskip("ray")
    since = time.monotonic()
    with pytest.raises(WorkError, match=r"No Ray cluster can be reached at '127\.0\.0\.1:9'.*ray start --head"):
        executor_of("ray:127.0.0.1:9")
    assert time.monotonic() - since < 60
