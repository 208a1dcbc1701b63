"""When an experiment would be done on so many GPUs: a list schedule of its cells, simulated from measured rates.

Each cell takes the GPUs that it asks for, as long as its price says (GPU hours over GPUs, as if several GPUs of one training
lost nothing), and starts as soon as what it needs is there and enough GPUs are free; of those that could start, the one with
the longest way to the end goes first. With `serve` the evaluations follow all trainings, one after the other on the server's
GPUs. Corpora ask for no GPU and for no time here: a provider's batch API sets theirs.
"""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from rich import box
from rich.table import Table

from msm_bench.errors import RequestError
from msm_bench.experiment.cells import CorpusCell, EvalCell, plan
from msm_bench.experiment.costs import Cost, in_words
from msm_bench.experiment.places import Cell, needs
from msm_bench.experiment.resources import needs_of
from msm_bench.experiment.settings import Experiment


class Placed(BaseModel):
    """A cell in the schedule, hours from its begin."""

    model_config = ConfigDict(frozen=True)

    cell: str
    gpus: int
    start: float
    end: float


class Schedule(BaseModel):
    """A whole schedule."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    gpus: int
    device: str
    hours: float
    """Until the last cell ends (makespan)."""
    gpu_hours: float
    utilisation: float
    """GPU hours of work over GPU hours that were there."""
    longest_path_hours: float
    """What no number of GPUs goes below."""
    tail_hours: float
    """From the first moment after which half of the GPUs or more stand still for good."""
    tail: tuple[str, ...]
    """The cells that run in it, last one first."""
    cells: tuple[Placed, ...]


def schedules(experiment: Experiment, cost: Cost, gpus: str) -> list[Schedule]:
    """The schedules for counts as in "8,32,128".

    Raises:
        RequestError: a count is no number, or too small for a cell; a cell has no price in hours.
    """
    counts = [part.strip() for part in gpus.split(",")]
    if not all(count.isdigit() and int(count) for count in counts):
        raise RequestError(f"'{gpus}' are no numbers of GPUs.", "Write --gpus 8,32,128, say.")
    return [simulate(experiment, cost, int(count)) for count in counts]


def simulate(experiment: Experiment, cost: Cost, gpus: int) -> Schedule:
    """The schedule on a number of GPUs. Cells that are there already take no time."""
    cells = list(plan(experiment).cells())
    hours: dict[str, float] = {}
    asked: dict[str, int] = {}
    for cell, priced in zip(cells, cost.cells, strict=True):
        free = priced.done or isinstance(cell, CorpusCell)
        asked[cell.key] = 0 if free else max(1, math.ceil(needs_of(cell, experiment, gpus=True).gpus))
        if asked[cell.key] > gpus:
            raise RequestError(f"'{cell.name}' needs {asked[cell.key]} GPUs.", f"Give --gpus {asked[cell.key]} or more.")
        if priced.hours is None and not free:
            raise RequestError(f"'{cell.name}' has no price in hours.", "Set base_parameters in the experiment.")
        hours[cell.key] = 0.0 if free else (priced.hours or 0.0) / asked[cell.key]
    first = [cell for cell in cells if experiment.serve is None or not isinstance(cell, EvalCell)]
    placed = list_schedule(first, hours, asked, gpus)
    longest = max(longest_ways(first, hours).values(), default=0.0)
    now = max((end for _, end in placed.values()), default=0.0)
    for cell in cells:
        if cell.key not in placed:
            placed[cell.key] = now, now + hours[cell.key]
            now, longest = now + hours[cell.key], longest + hours[cell.key]
    return _summary(experiment, cost.device, gpus, hours, placed, cells, asked, longest)


def list_schedule(
    cells: Sequence[Cell], hours: Mapping[str, float], gpus: Mapping[str, int], count: int
) -> dict[str, tuple[float, float]]:
    """Start and end of every cell, by key.

    Args:
        cells: In an order in which they can be made.
        hours: Key to how long a cell takes.
        gpus: Key to how many GPUs it takes, none above `count`.
        count: GPUs that there are.
    """
    ways = longest_ways(cells, hours)
    missing = {cell.key: {need.key for need in needs(cell)} for cell in cells}
    ready = [cell for cell in cells if not missing[cell.key]]
    running: list[tuple[float, int, Cell]] = []
    placed: dict[str, tuple[float, float]] = {}
    now, free, order = 0.0, count, itertools.count()
    while ready or running:
        for cell in sorted(ready, key=lambda cell: -ways[cell.key]):
            if gpus[cell.key] <= free:
                free -= gpus[cell.key]
                ready.remove(cell)
                placed[cell.key] = now, now + hours[cell.key]
                heapq.heappush(running, (placed[cell.key][1], next(order), cell))
        now, _, over = heapq.heappop(running)
        free += gpus[over.key]
        for cell in cells:
            if over.key in missing[cell.key]:
                missing[cell.key].discard(over.key)
                if not missing[cell.key]:
                    ready.append(cell)
    return placed


def longest_ways(cells: Sequence[Cell], hours: Mapping[str, float]) -> dict[str, float]:
    """For each cell, hours from its begin to the end of the longest chain of cells that starts with it."""
    ways = {cell.key: 0.0 for cell in cells}
    for cell in reversed(cells):
        ways[cell.key] += hours[cell.key]
        for need in needs(cell):
            ways[need.key] = max(ways[need.key], ways[cell.key])
    return ways


def _summary(
    experiment: Experiment,
    device: str,
    gpus: int,
    hours: Mapping[str, float],
    placed: Mapping[str, tuple[float, float]],
    cells: Sequence[Cell],
    asked: Mapping[str, int],
    longest: float,
) -> Schedule:
    end = max((over for _, over in placed.values()), default=0.0)
    work = sum(hours[cell.key] * asked[cell.key] for cell in cells)

    def busy(moment: float) -> int:
        return sum(asked[key] for key, (start, over) in placed.items() if start <= moment < over)

    # The tail begins where the GPUs were last more than half busy.
    moments = sorted({over for _, over in placed.values()} | {start for start, _ in placed.values()})
    tail = max((after for before, after in itertools.pairwise(moments) if busy(before) * 2 > gpus), default=0.0)
    last = sorted((cell for cell in cells if placed[cell.key][1] > tail), key=lambda cell: -placed[cell.key][1])
    shown = [cell for cell in cells if asked[cell.key]]
    return Schedule(
        experiment=experiment.name,
        gpus=gpus,
        device=device,
        hours=end,
        gpu_hours=work,
        utilisation=work / (gpus * end) if end else 0.0,
        longest_path_hours=longest,
        tail_hours=end - tail,
        tail=tuple(cell.name for cell in last),
        cells=tuple(
            Placed(cell=cell.name, gpus=asked[cell.key], start=placed[cell.key][0], end=placed[cell.key][1]) for cell in shown
        ),
    )


def render(found: Sequence[Schedule]) -> Table:
    """The schedules as a table, one line each."""
    title = f"{found[0].experiment} on {found[0].device}, simulated from measured rates"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("GPUs", "time", "GPU hours", "used", "least time", "tail"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("in the tail", overflow="fold")
    for each in found:
        more = [f"and {len(each.tail) - 3} more"] if len(each.tail) > 3 else []
        table.add_row(
            str(each.gpus),
            in_words(each.hours),
            f"{each.gpu_hours:.1f}",
            f"{each.utilisation:.0%}",
            in_words(each.longest_path_hours),
            in_words(each.tail_hours),
            "\n".join([*each.tail[:3], *more]),
        )
    return table
