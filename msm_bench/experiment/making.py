"""Making a cell, or evaluations on one server, on whatever machine: claim, look what is there, go on with what is unfinished.

A claim is held by one process at a time. Whoever comes second waits, finds the cell made, and makes nothing: so a cell that was
given out twice, after a network that came back or a driver that was started twice, is still made once.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import seal, write_text_atomically, writing_folder
from msm_bench.errors import MsmBenchError, RequestError
from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.evaluating import Display, adapter_of, evaluate
from msm_bench.experiment.places import Cell, Failure, Places, is_done, needs
from msm_bench.experiment.resources import Needs
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.sharing import Shared

if TYPE_CHECKING:
    from msm_bench.experiment.serving.server import Server

FAILURES = (MsmBenchError, OSError, RuntimeError, ValueError)
"""What a cell may fail with; anything else is an error of this program and stops the run."""


class Job(BaseModel):
    """What to make, with all that a process on another machine must know; a few kilobytes, no data."""

    model_config = ConfigDict(frozen=True)

    key: str
    """The cell's; where there are `keys`, the job's own."""
    keys: tuple[str, ...] = ()
    """The cells of a job that evaluates several of them on one server; empty for a job of one cell."""
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
    """Makes a job's cells in this process and writes down why if one fails; call it in the job's folder.

    Returns:
        Whether all of them are there now.

    Raises:
        RequestError: the experiment has no such cell.
    """
    made = plan(job.experiment)
    places = Places.of(job.experiment, Path(job.root), Path(job.logs))
    shared = Shared.of(job.store, places)
    wanted = set(job.keys or (job.key,))
    cells = [cell for cell in made.cells() if cell.key in wanted]
    if len(cells) < len(wanted):
        raise RequestError(f"'{job.name}' is no cell of the experiment here.", "Install the same version on every machine.")
    if not job.keys:
        return _make_one(cells[0], job, places, shared)
    return _make_on_server([cell for cell in cells if isinstance(cell, EvalCell)], job, places, shared)


def _make_one(cell: Cell, job: Job, places: Places, shared: Shared, server: "Server | None" = None) -> bool:
    try:
        with _held(places.claim(cell)), shared.claim(cell):
            if not (is_done(cell, places) or shared.take(cell)):
                for need in needs(cell):
                    if not (is_done(need, places) or shared.take(need)):
                        raise RequestError(f"'{need.name}' is not there.", "Run the experiment again.")
                shared.take_state(cell)
                with _states(shared, cell, len(job.experiment.evals)):
                    _make(cell, job, places, server)
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


def _make_on_server(cells: Sequence[EvalCell], job: Job, places: Places, shared: Shared) -> bool:
    """Evaluates cells one after the other on one server, which is not started where all of them are there."""
    from msm_bench.experiment.serving.server import served

    serving = job.experiment.serve
    if serving is None:
        raise RequestError(f"'{job.name}' needs a server, and the experiment has none.", "Set 'serve'.")
    # Who comes second waits here, and not with a second server that holds GPUs.
    with _held(places.root / "claims" / f"{places.logs.name}-server.lock"):
        missing = [cell for cell in cells if not (is_done(cell, places) or shared.take(cell))]
        if not missing:
            return True
        try:
            there = [cell for cell in missing if all(is_done(need, places) or shared.take(need) for need in needs(cell))]
            adapters = [folder for cell in there if (folder := adapter_of(cell, places)) is not None]
            with served(job.experiment.base, adapters, serving, places.state / "serving", say=_say) as server:
                return all([_make_one(cell, job, places, shared, server) for cell in missing])
        except Exception as error:
            for cell in missing:
                if not (is_done(cell, places) or places.failure(cell).is_file()):
                    write_failure(cell, places, shared, f"{type(error).__name__}: {error}")
            if not isinstance(error, FAILURES):
                raise
            return False


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # stdout is the command's


def write_failure(cell: Cell, places: Places, shared: Shared, reason: str) -> None:
    """Writes down why a cell is not there."""
    path = places.failure(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = Failure(cell=cell.name, reason=reason[:2000], at=datetime.now(UTC)).model_dump_json(indent=2) + "\n"
    write_text_atomically(path, text)
    shared.write_failure(cell, text)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
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


def _make(cell: Cell, job: Job, places: Places, server: "Server | None") -> None:
    match cell:
        case CorpusCell():
            _corpus(cell, job.experiment, places)
        case TrainCell():
            _train(cell, job, places)
        case EvalCell():
            evaluate(cell, job.experiment, places, job.display, server)


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
