"""How far an experiment is: every cell done, partial, failed, waiting, missing, or stale; read from disk alone."""

from collections import Counter
from pathlib import Path
from typing import Literal

from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample_summaries
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.running import Cell, Failure, Places, is_done
from msm_bench.experiment.settings import Experiment

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


def status(experiment: Experiment, root: Path = Path("runs"), logs: Path = Path("logs")) -> Status:
    """The state of every cell. Nothing is written, and a running process is not disturbed."""
    made, places = plan(experiment), Places.of(experiment, root, logs)
    cells = [_of(cell, places, experiment) for cell in made.cells()]
    wanted = {cell.folder(places.logs).name for cell in made.evaluations}
    aside = places.logs.with_name(f"{places.logs.name}.stale")
    for parent in (places.logs, aside):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else []:
            if folder.is_dir() and (parent == aside or folder.name not in wanted):
                detail = "was run with other settings"
                cells.append(CellStatus(kind="evaluation", name=folder.name, state="stale", detail=detail, folder=str(folder)))
    return Status(experiment=experiment.name, cells=tuple(cells))


def _of(cell: Cell, places: Places, experiment: Experiment) -> CellStatus:
    kind: Literal["corpus", "training", "evaluation"]
    match cell:
        case CorpusCell():
            kind, folder = "corpus", cell.folder(places.root)
        case TrainCell():
            kind, folder = "training", cell.folder(places.root)
        case EvalCell():
            kind, folder = "evaluation", cell.folder(places.logs)
    state: State = "missing"
    detail = ""
    failure = places.failure(cell)
    if is_done(cell, places):
        state = "done"
    elif failure.is_file():
        state, detail = "failed", Failure.model_validate_json(failure.read_bytes()).reason
    elif kind == "training" and (partial := folder.with_name(f"{folder.name}.partial")).is_dir():
        state, detail = "partial", f"{_lines(partial / 'losses.jsonl')} updates"
    elif kind == "evaluation" and folder.is_dir():
        state, detail = "partial", _samples(folder, len(experiment.evals))
    return CellStatus(kind=kind, name=cell.name, state=state, detail=detail, folder=str(folder))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _samples(folder: Path, tasks: int) -> str:
    """Rollouts that are on disk, of those that the tasks that have begun will have."""
    newest = {}
    for info in sorted(list_eval_logs(str(folder)), key=lambda info: info.mtime or 0):
        log = read_eval_log(info, header_only=True)
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
