"""Where an experiment's things lie, and what is there: the one answer that the runner, its workers and `status` share."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import MANIFEST_FILE
from msm_bench.checkpoints.manifest import CHECKPOINT_FILE
from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell
from msm_bench.experiment.settings import Experiment

Cell = CorpusCell | TrainCell | EvalCell
DONE_FILE = "done"
"""In a folder of logs: every task of the cell has ended well."""


class Failure(BaseModel):
    """Why a cell is not there."""

    model_config = ConfigDict(frozen=True)

    cell: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Places:
    """Where an experiment's things lie."""

    root: Path
    """`runs`: corpora and checkpoints, shared by all experiments."""
    logs: Path
    """The experiment's folder of Inspect logs."""
    state: Path
    """The experiment's own folder: its settings, failures and lock."""

    @classmethod
    def of(cls, experiment: Experiment, root: Path, logs: Path) -> "Places":
        """The places under a folder for runs and one for logs."""
        return cls(root, logs / experiment.name, root / experiment.name)

    def failure(self, cell: Cell) -> Path:
        """The file that says why a cell failed."""
        return self.state / "failures" / f"{cell.key}.json"

    def folder(self, cell: Cell) -> Path:
        """Where a cell's result is, or will be."""
        return cell.folder(self.logs if isinstance(cell, EvalCell) else self.root)

    def partial(self, cell: Cell) -> Path:
        """Where the unfinished work of a cell lies, which another process goes on with."""
        folder = self.folder(cell)
        match cell:
            case CorpusCell():
                return folder.with_name(f"{folder.name}.work")
            case TrainCell():
                return folder.with_name(f"{folder.name}.partial")
            case EvalCell():
                return folder

    def claim(self, cell: Cell) -> Path:
        """The file whose lock says that a process makes the cell; beside what all experiments share."""
        owner = f"{self.logs.name}-" if isinstance(cell, EvalCell) else ""
        return self.root / "claims" / f"{owner}{cell.key}.lock"


def is_done(cell: Cell, places: Places) -> bool:
    """Whether a cell's result is on disk, whole."""
    match cell:
        case CorpusCell():
            return cell.kind == "folder" or (places.folder(cell) / MANIFEST_FILE).is_file()
        case TrainCell():
            return (places.folder(cell) / CHECKPOINT_FILE).is_file()
        case EvalCell():
            return (places.folder(cell) / DONE_FILE).is_file()


def needs(cell: Cell) -> Iterator[Cell]:
    """The cells that must be there before a cell can be made."""
    match cell:
        case TrainCell():
            yield from (corpus for corpus, _ in cell.corpora)
            if cell.parent is not None:
                yield cell.parent
        case EvalCell() if cell.checkpoint is not None:
            yield cell.checkpoint


def progress(cell: Cell, places: Places) -> float:
    """A number that grows while a cell's unfinished work grows on disk; 0 where there is none."""
    newest = 0.0
    for path in places.partial(cell).rglob("*"):
        try:
            newest = max(newest, path.stat().st_mtime)
        except OSError:  # gone between the listing and the look
            continue
    return newest
