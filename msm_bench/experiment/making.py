"""Making one cell, on whatever machine: claim it, look whether it is there, go on with what is unfinished.

A claim is held by one process at a time. Whoever comes second waits, finds the cell made, and makes nothing: so a cell that was
given out twice, after a network that came back or a driver that was started twice, is still made once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import seal, write_text_atomically, writing_folder
from msm_bench.errors import MsmBenchError, RequestError
from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.evaluating import Display, evaluate
from msm_bench.experiment.places import Cell, Failure, Places, is_done, needs
from msm_bench.experiment.resources import Needs
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.sharing import Shared

FAILURES = (MsmBenchError, OSError, RuntimeError, ValueError)
"""What a cell may fail with; anything else is an error of this program and stops the run."""


class Job(BaseModel):
    """One cell to make, with all that a process on another machine must know; a few kilobytes, no data."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    stage: str
    """Cells of one stage are of one kind and depth; a queue takes them as one array."""
    experiment: Experiment
    root: str
    logs: str
    folder: str
    """Where to work: `root` and `logs` are relative to it."""
    store: str | None = None
    needs: Needs = Needs()
    display: Display = "none"


def make(job: Job) -> bool:
    """Makes a cell in this process and writes down why if that fails; call it in the job's folder.

    Returns:
        Whether the cell is there now.
    """
    made = plan(job.experiment)
    places = Places.of(job.experiment, Path(job.root), Path(job.logs))
    shared = Shared.of(job.store, places)
    found = [cell for cell in made.cells() if cell.key == job.key]
    if not found:
        raise RequestError(f"'{job.name}' is no cell of the experiment here.", "Install the same version on every machine.")
    cell = found[0]
    try:
        with _claimed(cell, places), shared.claim(cell):
            if not (is_done(cell, places) or shared.take(cell)):
                for need in needs(cell):
                    if not (is_done(need, places) or shared.take(need)):
                        raise RequestError(f"'{need.name}' is not there.", "Run the experiment again.")
                shared.take_state(cell)
                with _states(shared, cell, len(job.experiment.evals)):
                    _make(cell, job, places)
            shared.give(cell)
            places.failure(cell).unlink(missing_ok=True)
            shared.forget_failure(cell)
    except FAILURES as error:
        write_failure(cell, places, shared, f"{type(error).__name__}: {error}")
        return False
    except Exception as error:
        # An error of this program: on record, so that it is not taken for a lost machine and tried again.
        write_failure(cell, places, shared, f"{type(error).__name__}: {error}")
        raise
    return True


def write_failure(cell: Cell, places: Places, shared: Shared, reason: str) -> None:
    """Writes down why a cell is not there."""
    path = places.failure(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = Failure(cell=cell.name, reason=reason[:2000], at=datetime.now(UTC)).model_dump_json(indent=2) + "\n"
    write_text_atomically(path, text)
    shared.write_failure(cell, text)


@contextmanager
def _claimed(cell: Cell, places: Places) -> Iterator[None]:
    lock = places.claim(cell)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


@contextmanager
def _states(shared: Shared, cell: Cell, tasks: int) -> Iterator[None]:
    """While the block runs, gives each new state of the unfinished work to the store."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(shared.seconds):
            shared.give_state(cell, tasks)

    watcher = threading.Thread(target=watch, daemon=True)
    if shared.active:
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if shared.active:
            watcher.join()
            shared.give_state(cell, tasks)


def _make(cell: Cell, job: Job, places: Places) -> None:
    match cell:
        case CorpusCell():
            _corpus(cell, job.experiment, places)
        case TrainCell():
            _train(cell, job, places)
        case EvalCell():
            evaluate(cell, job.experiment, places, job.display)


def _corpus(cell: CorpusCell, experiment: Experiment, places: Places) -> None:
    out = places.folder(cell)
    if cell.kind == "mix":
        from msm_bench.corpus.mix import local_mix
        from msm_bench.corpus.rows import CHATS_FILE, write_chats

        with writing_folder(out) as folder:
            write_chats(folder / CHATS_FILE, local_mix())
            seal(folder, "chats", settings={"mix": "local"})
        return
    from msm_bench.corpus.generate import generate

    made = experiment.corpora
    generate(
        cell.kind,
        cell.source,
        out,
        offline=made.offline,
        n=made.documents if cell.kind == "documents" else made.chats,
        model_name=made.model_name,
        provider_name=made.provider_name,
        seed=made.seed,
        allow_control=experiment.allow_control,
        generator=None if made.offline else experiment.generator,
        grader=None if made.offline else experiment.grader,
    )


def _train(cell: TrainCell, job: Job, places: Places) -> None:
    from msm_bench.trainers import train

    experiment = job.experiment
    data = [
        str(places.folder(corpus)) if share is None else f"{places.folder(corpus)}={share}" for corpus, share in cell.corpora
    ]
    train(
        cell.stage.kind,
        experiment.recipe,
        experiment.base.removeprefix("msm/"),
        data,
        places.folder(cell),
        parent=places.folder(cell.parent) if cell.parent else None,
        overrides=experiment.overrides_of(cell.stage.kind, cell.seed),
        accelerate=job.needs.accelerate,
        grader=experiment.grader if cell.stage.kind == "deliberative" else None,
        allow_control=experiment.allow_control,
        allow_few_updates=experiment.allow_few_updates,
        waive=experiment.waive,
    )
