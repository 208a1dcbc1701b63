"""What this machine takes from the artefact store and gives to it, by cells; without a store all of it does nothing."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell
from msm_bench.experiment.places import Cell, Failure, Places, is_done, progress
from msm_bench.experiment.store import Store


@dataclass
class Shared:
    """The store of a run, or none.

    Attributes:
        store: None where every machine sees the same paths.
        places: Of this machine.
        seconds: Between two looks for a new state of unfinished work.
    """

    store: Store | None
    places: Places
    seconds: float = 30.0
    _given: dict[str, float] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, url: str | None, places: Places) -> "Shared":
        """The store of a URL, or none."""
        return cls(None if url is None else Store(url), places)

    @property
    def active(self) -> bool:
        """Whether there is a store."""
        return self.store is not None

    def has(self, cell: Cell) -> bool:
        """Whether the store has a cell's result. A yes is remembered: results do not go away."""
        if self.store is None or cell.key in self._whole:
            return self.store is not None
        if self.store.has(self._name(cell)):
            self._whole.add(cell.key)
        return cell.key in self._whole

    def take(self, cell: Cell) -> bool:
        """Puts a cell's result into its place here; False where the store has none."""
        return self.has(cell) and self.store is not None and self.store.get(self._name(cell), self.places.folder(cell))

    def give(self, cell: Cell) -> None:
        """Puts a cell's result into the store and removes the states that led to it."""
        if self.store is None or self.has(cell) or (isinstance(cell, CorpusCell) and cell.kind == "folder"):
            return
        self.store.put(self.places.folder(cell), self._name(cell))
        self.store.remove_states(self._name(cell))

    def take_state(self, cell: Cell) -> None:
        """Puts the newest state of a cell's unfinished work here, unless what is here is newer."""
        if self.store is not None and not self._mark(cell):
            self.store.get_state(self._name(cell), self.places.partial(cell))
            self._given[cell.key] = self._mark(cell)

    def give_state(self, cell: Cell, tasks: int) -> None:
        """Puts a cell's unfinished work into the store, if it grew since the last time and is not finished."""
        mark = self._mark(cell)
        if self.store is None or mark <= self._given.get(cell.key, 0.0) or is_done(cell, self.places):
            return
        from msm_bench.experiment.status import unfinished

        self.store.put_state(self.places.partial(cell), self._name(cell), unfinished(cell, self.places, tasks) or "")
        self._given[cell.key] = mark

    def state(self, cell: Cell) -> str | None:
        """How far the store's state of a cell is, None where it has none."""
        return None if self.store is None else self.store.state_detail(self._name(cell))

    def claim(self, cell: Cell) -> AbstractContextManager[None]:
        """Holds a cell against other machines."""
        return nullcontext() if self.store is None else self.store.claim(self._name(cell))

    def failure(self, cell: Cell) -> Failure | None:
        """Why a cell failed elsewhere, None where it did not."""
        text = None if self.store is None else self.store.read_text(self._failure(cell))
        return None if text is None else Failure.model_validate_json(text)

    def write_failure(self, cell: Cell, text: str) -> None:
        """Says to others why a cell failed."""
        if self.store is not None:
            self.store.write_text(self._failure(cell), text)

    def forget_failure(self, cell: Cell) -> None:
        """Takes back what `write_failure` said."""
        if self.store is not None:
            self.store.remove_text(self._failure(cell))

    def _name(self, cell: Cell) -> str:
        folder = self.places.folder(cell)
        if isinstance(cell, EvalCell):
            return f"logs/{self.places.logs.name}/{folder.name}"
        return f"{folder.parent.name}/{folder.name}"

    def _failure(self, cell: Cell) -> str:
        return f"failures/{self.places.state.name}/{cell.key}.json"

    def _mark(self, cell: Cell) -> float:
        if not isinstance(cell, TrainCell):
            return progress(cell, self.places)
        # Only whole states: what lies between two of them would be trained again anyway.
        states = self.places.partial(cell).glob("*/checkpoint-*/complete")
        return max((path.stat().st_mtime for path in states), default=0.0)
