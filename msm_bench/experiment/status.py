"""How far an experiment is: every cell done, partial, failed, waiting, missing, or stale; read from disk alone."""

from collections import Counter
from pathlib import Path
from typing import Literal

from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.places import Cell, Failure, Places, is_done
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.sharing import Shared

State = Literal["done", "partial", "failed", "missing", "stale"]


class CellStatus(BaseModel):
    """One cell."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["corpus", "training", "evaluation"]
    name: str
    state: State
    detail: str = ""
    """n of N for a partial cell, the reason for a failed one."""
    folder: str


class Status(BaseModel):
    """An experiment."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    cells: tuple[CellStatus, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Cells by state."""
        return dict(Counter(cell.state for cell in self.cells))


def status(experiment: Experiment, root: Path = Path("runs"), logs: Path = Path("logs"), store: str | None = None) -> Status:
    """The state of every cell, wherever it was made. Nothing is written, and a running process is not disturbed.

    Args:
        experiment: The experiment.
        root: Folder of corpora and checkpoints.
        logs: Folder of logs.
        store: URL of the artefact store that the machines share; None where they share the two folders.
    """
    made, places = plan(experiment), Places.of(experiment, root, logs)
    shared = Shared.of(store, places)
    cells = [_of(cell, places, shared, len(experiment.evals)) for cell in made.cells()]
    wanted = {cell.folder(places.logs).name for cell in made.evaluations}
    aside = places.logs.with_name(f"{places.logs.name}.stale")
    for parent in (places.logs, aside):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
            if folder.is_dir() and (parent == aside or folder.name not in wanted):
                detail = "was run with other settings"
                cells.append(CellStatus(kind="evaluation", name=folder.name, state="stale", detail=detail, folder=str(folder)))
    return Status(experiment=experiment.name, cells=tuple(cells))


def _of(cell: Cell, places: Places, shared: Shared, tasks: int) -> CellStatus:
    kinds: dict[type[Cell], Literal["corpus", "training", "evaluation"]] = {
        CorpusCell: "corpus",
        TrainCell: "training",
        EvalCell: "evaluation",
    }
    state, detail = _state(cell, places, shared, tasks)
    return CellStatus(kind=kinds[type(cell)], name=cell.name, state=state, detail=detail, folder=str(places.folder(cell)))


def _state(cell: Cell, places: Places, shared: Shared, tasks: int) -> tuple[State, str]:
    if is_done(cell, places) or shared.has(cell):
        return "done", ""
    path = places.failure(cell)
    failure = Failure.model_validate_json(path.read_bytes()) if path.is_file() else shared.failure(cell)
    if failure is not None:
        return "failed", failure.reason
    here, elsewhere = unfinished(cell, places, tasks), shared.state(cell)
    if here is None and elsewhere is None:
        return "missing", ""
    return "partial", elsewhere or here or ""


def unfinished(cell: Cell, places: Places, tasks: int) -> str | None:
    """How far the work on a cell is here, in words; None where none has begun. `tasks` is how many an evaluation has."""
    folder = places.partial(cell)
    if not folder.is_dir():
        return None
    match cell:
        case CorpusCell():
            return f"{_lines(folder / 'calls.jsonl')} calls answered"
        case TrainCell():
            return f"{sum(_lines(path) for path in folder.glob('*/losses.jsonl'))} updates"
        case EvalCell():
            return _samples(folder, tasks)


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _samples(folder: Path, tasks: int) -> str:
    """Rollouts that are on disk, of those that the tasks that have begun will have."""
    newest = {}
    for info in sorted(list_eval_logs(str(folder)), key=lambda info: info.mtime or 0):
        try:
            log = read_eval_log(info, header_only=True)
        except (OSError, KeyError, ValueError):  # replaced by a newer one between the listing and the look
            continue
        newest[log.eval.task_id] = (info, log)
    there = wanted = 0
    for info, log in newest.values():
        wanted += len(log.eval.dataset.sample_ids or ()) * (log.eval.config.epochs or 1)
        there += sum(1 for summary in read_eval_log_sample_summaries(info) if summary.completed)
    return f"{there} of {wanted} rollouts, {len(newest)} of {tasks} tasks begun"


def render(found: Status) -> Table:
    """The status as a table."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(found.counts.items()))
    table = Table(title=f"{found.experiment}: {counts}")
    for name in ("kind", "cell", "state", "detail"):
        table.add_column(name, overflow="fold")
    for cell in found.cells:
        table.add_row(cell.kind, cell.name, cell.state, cell.detail)
    return table
