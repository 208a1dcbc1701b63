"""The loop of a run: gives out what can be made, takes in what has ended, and looks at the disk to see what became of it."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import sha256_of_value
from msm_bench.experiment.cells import CorpusCell, EvalCell, Plan, TrainCell
from msm_bench.experiment.evaluating import Display
from msm_bench.experiment.executors.contract import Executor
from msm_bench.experiment.making import Job, write_failure
from msm_bench.experiment.places import Cell, Failure, Places, is_done, needs, progress
from msm_bench.experiment.resources import needs_of
from msm_bench.experiment.schedule import longest_ways
from msm_bench.experiment.sharing import Shared
from msm_bench.experiment.spending import Spending

LOSSES = 3
"""How often in a row a cell may be lost without having come further before it counts as failed."""
_LOOK_SECONDS = 10.0


class Outcome(BaseModel):
    """What a run did, by the names of cells."""

    model_config = ConfigDict(frozen=True)

    made: tuple[str, ...]
    standing: tuple[str, ...]
    failed: tuple[str, ...]
    waiting: tuple[str, ...]
    stopped: str | None
    """Why the run stopped before its end, None where it did not."""
    lost: int = 0
    """How often a process or machine went away with a cell."""


@dataclass
class Runner:
    """One run. `run()` until it returns or is interrupted, then `outcome()`."""

    plan: Plan
    places: Places
    executor: Executor
    shared: Shared
    say: Callable[[str], None]
    display: Display
    root: Path
    logs: Path
    stopped: str | None = None
    lost: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _results: dict[str, list[str]] = field(default_factory=lambda: {"made": [], "standing": [], "failed": [], "waiting": []})
    _bad: set[str] = field(default_factory=set)
    _good: set[str] = field(default_factory=set)
    _running: dict[str, tuple[tuple[Cell, ...], float]] = field(default_factory=dict)
    """A job's key to its cells and when it began."""
    _losses: dict[str, tuple[object, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cells = list(self.plan.cells())
        self._numbers = {cell.key: number for number, cell in enumerate(self._cells, 1)}
        self._ways = longest_ways(self._cells, {cell.key: 1.0 for cell in self._cells})
        self._spending = Spending(self.plan, self.places)

    def run(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Until nothing is left that can be made, or the budget is spent.

        Args:
            interrupted: Asked after every cell that ended.

        Raises:
            KeyboardInterrupt: it was interrupted, and what ran at that time went on to its end.
        """
        left = [cell for cell in self._cells if not self._stands(cell)]
        self._results["standing"] = [cell.name for cell in self._cells if cell.key in self._good]
        while left or self._running:
            left = self._without_waiting(left)
            ready = self._ready(left)
            free = len(ready) if self.executor.slots is None else self.executor.slots - len(self._running)
            self.stopped = self._over_budget()
            if self.stopped and (ready or self._running):
                begun = [cell for unit, _ in self._running.values() for cell in unit]
                first = min([*begun, *(cell for unit in ready for cell in unit)], key=lambda cell: self._numbers[cell.key])
                self.say(f"{self._where(first)}: not {'ended' if first in begun else 'begun'}, {self.stopped}")
                return
            chosen = ready[:free]
            self._submit(chosen, len(left))
            left = [cell for cell in left if not any(cell in unit for unit in chosen)]
            for key in self.executor.ended(_LOOK_SECONDS) if self._running else ():
                left += self._settle(*self._running.pop(key))
            if (left or self._running) and interrupted():
                raise KeyboardInterrupt

    def outcome(self) -> Outcome:
        """What was done."""
        return Outcome.model_validate({**self._results, "stopped": self.stopped, "lost": self.lost})

    def _stands(self, cell: Cell) -> bool:
        """Whether a cell is there; what is here alone is given to the store, for the other machines."""
        if is_done(cell, self.places):
            self.shared.give(cell)
        elif not self.shared.has(cell):
            if self.shared.state(cell) is None:
                self.shared.give_state(cell, len(self.plan.experiment.evals))
            return False
        elif isinstance(cell, EvalCell):
            self.shared.take(cell)
        self._good.add(cell.key)
        return True

    def _without_waiting(self, left: Sequence[Cell]) -> list[Cell]:
        """Cells in the plan's order, those left out that need one that failed."""
        kept = []
        for cell in sorted(left, key=lambda cell: self._numbers[cell.key]):
            if any(need.key in self._bad for need in needs(cell)):
                self._bad.add(cell.key)
                self._results["waiting"].append(cell.name)
                self.say(f"{self._where(cell)}: waits for a cell that failed")
            else:
                kept.append(cell)
        return kept

    def _ready(self, left: Sequence[Cell]) -> list[tuple[Cell, ...]]:
        """What can be given out now, each a job: a cell, or with `serve` all evaluations, when all else is settled."""
        ready = [cell for cell in left if all(need.key in self._good for need in needs(cell))]
        serve = self.plan.experiment.serve is not None
        units: list[tuple[Cell, ...]] = [(cell,) for cell in ready if not (serve and isinstance(cell, EvalCell))]
        if self.executor.slots != 1:  # first what most waits for; one by one, in the plan's order
            units.sort(key=lambda unit: -self._ways[unit[0].key])
        return units if units or self._running or not ready else [tuple(ready)]

    def _submit(self, units: Sequence[tuple[Cell, ...]], left: int) -> None:
        jobs = []
        for unit in units:
            for cell in unit:
                self.places.failure(cell).unlink(missing_ok=True)
                self.shared.forget_failure(cell)
                self.say(f"{self._where(cell)}: begins{self._time_left(left)}")
            jobs.append(self._job(unit))
            self._running[jobs[-1].key] = unit, time.monotonic()
        if jobs:
            self.executor.submit(jobs)

    def _settle(self, unit: Sequence[Cell], since: float) -> list[Cell]:
        """Takes in that a job has ended; returns the cells that must be given out again."""
        marks = tuple((cell.key, progress(cell, self.places), self.shared.state(cell)) for cell in unit)
        took = f" in {time.monotonic() - since:.0f} s" if len(unit) == 1 else ""
        before = self.lost
        again = [cell for cell in unit if not self._settle_one(cell, took, marks)]
        self.lost = min(self.lost, before + 1)  # one process, however many cells it had
        return again

    def _settle_one(self, cell: Cell, took: str, mark: object) -> bool:
        """The same for one of a job's cells, none of which has come further while `mark` stays."""
        where = self._where(cell)
        if is_done(cell, self.places) or self.shared.has(cell):
            if isinstance(cell, EvalCell) and not is_done(cell, self.places):
                self.shared.take(cell)
            self._good.add(cell.key)
            self._results["made"].append(cell.name)
            self.say(f"{where}: done{took}")
            return True
        path = self.places.failure(cell)
        failure = Failure.model_validate_json(path.read_bytes()) if path.is_file() else self.shared.failure(cell)
        if failure is None:
            self.lost += 1
            before, times = self._losses.get(cell.key, (None, 0))
            times = times + 1 if mark == before else 1
            self._losses[cell.key] = mark, times
            if times <= LOSSES:
                self.say(f"{where}: its process was lost, given out again")
                return False
            reason = f"its process was lost {times} times without having come further; its output says why, or memory ran out"
            write_failure(cell, self.places, self.shared, reason)
            failure = Failure.model_validate_json(path.read_bytes())
        self._bad.add(cell.key)
        self._results["failed"].append(cell.name)
        self.say(f"{where}: failed: {failure.reason}")
        return True

    def _job(self, unit: tuple[Cell, ...]) -> Job:
        from msm_bench.experiment.executors.local import Local

        folder = Path.cwd()
        if self.shared.store is not None and not isinstance(self.executor, Local):
            # One folder a store on each machine, so that what was taken once is found again.
            name = hashlib.sha256(self.shared.store.url.encode()).hexdigest()[:12]
            folder = Path(tempfile.gettempdir()) / f"msm-bench-{name}"
        cell, key, name = unit[0], unit[0].key, unit[0].name
        served = isinstance(cell, EvalCell) and self.plan.experiment.serve is not None
        if served:
            # Of all evaluations, so that a queue knows the job again when a part of them is done.
            key = sha256_of_value(["server", [each.key for each in self.plan.evaluations]])
            name = f"{self.plan.experiment.name} on a server"
        return Job(
            key=key,
            keys=tuple(each.key for each in unit) if served else (),
            name=name,
            stage=_stage(cell),
            experiment=self.plan.experiment,
            root=str(self.root),
            logs=str(self.logs),
            folder=str(folder),
            store=None if self.shared.store is None else self.shared.store.url,
            needs=needs_of(cell, self.plan.experiment, self.executor.gpus),
            display=self.display,
        )

    def _where(self, cell: Cell) -> str:
        return f"[{self._numbers[cell.key]}/{len(self._cells)}] {cell.name}"

    def _time_left(self, left: int) -> str:
        made = len(self._results["made"])
        if made == 0:
            return ""
        minutes = (time.monotonic() - self._begun) / made * left / 60
        return f" (about {minutes:.0f} min left)"

    def _over_budget(self) -> str | None:
        budget = self.plan.experiment.budget
        hours = (time.monotonic() - self._begun) / 3600
        if budget.hours is not None and hours >= budget.hours:
            return f"the budget of {budget.hours:g} hours is spent"
        if budget.dollars is not None:
            spent = self._spending.dollars()
            if spent >= budget.dollars:
                return f"${spent:.2f} of the budget of ${budget.dollars:g} are spent"
        return None


def _stage(cell: Cell) -> str:
    match cell:
        case CorpusCell():
            return "corpora"
        case TrainCell():
            depth = 1
            parent = cell.parent
            while parent is not None:
                depth, parent = depth + 1, parent.parent
            return f"train-{depth}-{cell.stage.kind}"
        case EvalCell():
            return "evaluate"
