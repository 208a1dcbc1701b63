"""Running an experiment: every cell that is not there yet, as soon as what it needs is there, on one executor or another.

A cell that fails is written down and the others go on; a cell whose parent failed waits for it. A cell whose process or machine
was lost is given out again, and goes on from its last complete state. The same command goes on with what is missing: a finished
cell costs a look at its folder, a half-trained one goes on from its last state, a half-evaluated one from its last sample
(Inspect's `eval_set`), whichever executor began it.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from msm_bench.analysis.declared import declare
from msm_bench.artefacts import write_text_atomically
from msm_bench.errors import RequestError
from msm_bench.experiment.cells import Plan, plan
from msm_bench.experiment.driving import Outcome, Runner
from msm_bench.experiment.evaluating import Display, check_tasks
from msm_bench.experiment.executors.contract import Executor, executor_of
from msm_bench.experiment.places import Places
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.sharing import Shared

__all__ = ["Outcome", "detach", "render", "run"]


def run(
    experiment: Experiment,
    root: Path = Path("runs"),
    logs: Path = Path("logs"),
    *,
    on: str | Executor = "local",
    store: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    display: Display = "none",
) -> Outcome:
    """Make every cell that is missing.

    Args:
        experiment: What to run.
        root: Folder of corpora, checkpoints and the run's state.
        logs: Folder of logs; the experiment's go into a folder of its name.
        on: Where: `local[:PROCESSES]`, `ray[:ADDRESS]`, `slurm[:PARTITION]`, or an executor, which is closed at the end.
        store: URL of the artefact store that the machines share; None where all of them see `root` and `logs`.
        say: Gets a line whenever a cell begins or ends.
        display: Inspect's display of the evaluations.

    Raises:
        RequestError: the plan cannot be made, a task or its arguments are wrong, or another process runs this experiment.
        WorkError: the cluster or the store cannot be reached.
    """
    made = checked(experiment)
    places = Places.of(experiment, root, logs)
    with _claimed(places):
        write_text_atomically(places.state / "experiment.json", experiment.model_dump_json(indent=2) + "\n")
        if experiment.contrasts:
            declare(places.logs, experiment.contrasts)
        _put_aside_stale(made, places)
        executor = executor_of(on) if isinstance(on, str) else on
        runner = Runner(made, places, executor, Shared.of(store, places), say, display, root, logs)
        try:
            with _terminate_as_interrupt(), _interrupts_heard() as heard:
                runner.run(heard)
        except KeyboardInterrupt:
            runner.stopped = "it was interrupted"
        finally:
            executor.close()
        return runner.outcome()


def checked(experiment: Experiment) -> Plan:
    """Its plan, after a look at all that can be wrong before anything is made. Raises `RequestError`."""
    made = plan(experiment)
    check_tasks(experiment)
    return made


def detach(arguments: list[str], state: Path) -> Path:
    """Starts `msm-bench` with these arguments in a process that outlives this one; returns the file that it writes to."""
    state.mkdir(parents=True, exist_ok=True)
    log = state / "run.log"
    with log.open("ab") as out:
        subprocess.Popen(
            [sys.executable, "-m", "msm_bench.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ,
        )
    return log


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does; a queue or a plain `kill` sends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _interrupts_heard() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM arrived since it was last asked, also where what ran did not stop for it.

    An event loop turns SIGINT into the cancellation of its main task. One that arrives while Inspect finishes a log behind a
    shield, or while a library catches everything, is gone then. The wake-up descriptor gets every signal's number nevertheless.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def heard() -> bool:
        try:
            numbers = os.read(read, 4096)
        except BlockingIOError:
            return False
        return signal.SIGINT in numbers or signal.SIGTERM in numbers

    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)


def _put_aside_stale(made: Plan, places: Places) -> None:
    """Moves logs of arms that were asked for otherwise out of the way, so that nothing compares them with the new ones."""
    if not places.logs.is_dir():
        return
    wanted = {cell.folder(places.logs).name for cell in made.evaluations}
    for folder in sorted(places.logs.iterdir()):
        if folder.is_dir() and folder.name not in wanted:
            aside = places.logs.with_name(f"{places.logs.name}.stale") / folder.name
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


@contextmanager
def _claimed(places: Places) -> Iterator[None]:
    places.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(places.state / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RequestError(
            f"Another process runs '{places.state.name}'.", "Look at it with 'msm-bench status', or wait for its end."
        ) from error
    try:
        yield
    finally:
        lock.release()


def render(outcome: Outcome, name: str) -> str:
    """The outcome in a few lines."""
    lines = [f"{len(outcome.made)} cells made, {len(outcome.standing)} were there, {len(outcome.failed)} failed."]
    lines += [f"Failed: {cell}" for cell in outcome.failed]
    lines += [f"Waiting for one that failed: {cell}" for cell in outcome.waiting]
    if outcome.stopped:
        lines.append(f"Stopped: {outcome.stopped}. The same command goes on.")
    elif outcome.failed:
        lines.append(f"The reasons: msm-bench status {name}. The same command tries them again.")
    else:
        lines.append(f"Read it: msm-bench compare logs/{name}")
    return "\n".join(lines)
