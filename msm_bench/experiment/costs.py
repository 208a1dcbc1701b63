"""What an experiment costs, before anything is spent: tokens, updates, hours, rollouts, judge calls, dollars, disk.

Times come from `rates.yaml` (measured), prices from the corpus room's price file. What cannot be known is absent, not zero.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat
from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msm_bench.corpus.pipeline.prices import PriceBook, Usage, load_prices
from msm_bench.errors import RequestError
from msm_bench.experiment.cells import CorpusCell, EvalCell, TrainCell, plan
from msm_bench.experiment.evaluating import check_tasks, full_name
from msm_bench.experiment.places import Places, is_done
from msm_bench.experiment.settings import Experiment
from msm_bench.trainers.contract import find_trainer
from msm_bench.trainers.recipe import Recipe, resolve_recipe
from msm_bench.trainers.run import FEWEST_UPDATES

RATES = Path(__file__).parent / "rates.yaml"


class Device(BaseModel):
    """A device's measured rates, FLOP/s as training and decoding really reach them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_flops: PositiveFloat
    generation_flops: PositiveFloat
    start_seconds: PositiveFloat
    """What every cell takes before its work: imports, checks."""
    load_seconds: PositiveFloat
    """To load a billion parameters."""
    source: str

    def hours(self, parameters: float, flops: float, rate: float) -> float:
        """Of one cell: its start, the base's parameters loaded, its FLOPs at a rate in FLOP/s."""
        return (self.start_seconds + self.load_seconds * parameters / 1e9 + flops / rate) / 3600


class Rates(BaseModel):
    """`rates.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: dict[str, PositiveFloat]
    """Base model's name to its parameters."""
    devices: dict[str, Device]
    judge_input: PositiveFloat
    judge_output: PositiveFloat
    """Tokens of one judgement."""
    generation_input: PositiveFloat
    """Prompt tokens of one generated row that the provider's cache does not serve."""
    tokens_per_rollout: dict[str, PositiveFloat]
    """Task to the tokens that one rollout reads and writes."""
    judged: tuple[str, ...]


class CellCost(BaseModel):
    """One cell. Absent (None): does not apply, or cannot be known."""

    model_config = ConfigDict(frozen=True)

    kind: str
    name: str
    done: bool
    rows: int | None = None
    tokens: float | None = None
    updates: int | None = None
    rollouts: int | None = None
    judge_calls: int | None = None
    hours: float | None = None
    dollars: float | None = None
    gigabytes: float | None = None


class Cost(BaseModel):
    """The whole experiment."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    device: str
    cells: tuple[CellCost, ...]
    unknown: tuple[str, ...]
    """What could not be priced, and why."""
    warnings: tuple[str, ...] = ()
    """What would stop the run."""

    def total(self, field: str, missing_only: bool = True) -> float | None:
        """Sum over the cells that are still to be made; None where nothing is known."""
        values = [getattr(cell, field) for cell in self.cells if not (missing_only and cell.done)]
        known = [float(value) for value in values if value is not None]
        return sum(known) if known else None


def load_rates() -> Rates:
    """The shipped rates."""
    return Rates.model_validate(yaml.safe_load(RATES.read_bytes()))


def cost(experiment: Experiment, device: str, root: Path = Path("runs"), logs: Path = Path("logs")) -> Cost:
    """The price of every cell on a kind of device. Loads no weights and writes nothing.

    Raises:
        RequestError: the device has no measured rate.
    """
    rates, book = load_rates(), load_prices()
    if device not in rates.devices:
        raise RequestError(f"There is no measured rate for '{device}'.", f"Use one of: {', '.join(rates.devices)}.")
    pricer = _Pricer(experiment, rates, rates.devices[device], book, Places.of(experiment, root, logs))
    check_tasks(experiment)
    cells = [pricer.cell(cell) for cell in plan(experiment).cells()]
    return Cost(
        experiment=experiment.name,
        device=device,
        cells=tuple(cells),
        unknown=tuple(dict.fromkeys(pricer.unknown)),
        warnings=tuple(pricer.warnings),
    )


class _Pricer:
    def __init__(self, experiment: Experiment, rates: Rates, device: Device, book: PriceBook, places: Places) -> None:
        self.experiment, self.rates, self.device, self.book, self.places = experiment, rates, device, book, places
        self.recipes: dict[str, Recipe] = {}
        self.unknown: list[str] = []
        self.warnings: list[str] = []
        self.parameters = experiment.base_parameters or rates.parameters.get(experiment.base)
        if self.parameters is None:
            self.unknown.append(f"hours: base_parameters of '{experiment.base}' is not given")

    def cell(self, cell: CorpusCell | TrainCell | EvalCell) -> CellCost:
        done = is_done(cell, self.places)
        match cell:
            case CorpusCell():
                return self._corpus(cell, done)
            case TrainCell():
                return self._training(cell, done)
            case EvalCell():
                return self._evaluation(cell, done)

    def _corpus(self, cell: CorpusCell, done: bool) -> CellCost:
        tokens = self._tokens(cell)
        dollars: float | None = None
        if cell.kind in ("mix", "folder") or self.experiment.corpora.offline:
            dollars = 0.0
        else:
            usage = Usage(input=int(cell.rows * self.rates.generation_input), output=int(tokens))
            dollars = self._dollars(self.experiment.generator, "generator", usage)
        return CellCost(
            kind="corpus", name=cell.name, done=done, rows=cell.rows, tokens=tokens, dollars=dollars, gigabytes=tokens * 6e-9
        )

    def _tokens(self, cell: CorpusCell) -> float:
        made = self.experiment.corpora
        file_kind = "documents" if cell.kind == "documents" else "chats"
        return cell.rows * (made.tokens_per_document if file_kind == "documents" else made.tokens_per_chat)

    def _training(self, cell: TrainCell, done: bool) -> CellCost:
        experiment = self.experiment
        trainer = find_trainer(cell.stage.kind)
        if cell.stage.kind not in self.recipes:
            overrides = experiment.overrides_of(cell.stage.kind)
            self.recipes[cell.stage.kind] = resolve_recipe(
                experiment.recipe, cell.stage.kind, trainer.recipe, overrides
            ).settings
        recipe = self.recipes[cell.stage.kind]
        whole, *mixed = cell.corpora
        per_row = self._tokens(whole[0]) / max(whole[0].rows, 1)
        rows = whole[0].rows / (1 - sum(share or 0 for _, share in mixed))
        tokens = min(rows * per_row, recipe.token_budget or float("inf")) * recipe.epochs
        row_tokens = recipe.max_tokens if recipe.packing else per_row
        updates = max(1, round(tokens / row_tokens / recipe.batch_rows))
        if updates < FEWEST_UPDATES and not experiment.allow_few_updates:
            self.warnings.append(f"'{cell.name}' would make about {updates} updates; below {FEWEST_UPDATES} training refuses.")
        # Forward and backward through frozen weights: 2 + 2 FLOPs a parameter and token, and the adapter's own are few.
        hours = None
        if self.parameters is not None:
            hours = self.device.hours(self.parameters, 4 * self.parameters * tokens, self.device.training_flops)
        size = None if self.parameters is None else self.parameters * 0.02 * 4e-9
        return CellCost(kind="training", name=cell.name, done=done, tokens=tokens, updates=updates, hours=hours, gigabytes=size)

    def _evaluation(self, cell: EvalCell, done: bool) -> CellCost:
        rollouts = calls = 0
        tokens = 0.0
        for each in self.experiment.evals:
            n = (each.samples or self._samples(each.task, each.args)) * each.epochs
            rollouts += n
            calls += n if each.task in self.rates.judged else 0
            tokens += n * self.rates.tokens_per_rollout.get(each.task, 2000)
        usage = Usage(input=int(calls * self.rates.judge_input), output=int(calls * self.rates.judge_output))
        dollars = self._dollars(self.experiment.grader, "grader", usage) if calls else 0.0
        hours = None
        if self.parameters is not None:
            hours = self.device.hours(self.parameters, 2 * self.parameters * tokens, self.device.generation_flops)
        return CellCost(
            kind="evaluation",
            name=cell.name,
            done=done,
            rollouts=rollouts,
            tokens=tokens,
            judge_calls=calls if self.experiment.grader else None,
            hours=hours,
            dollars=dollars,
            gigabytes=tokens * 6e-9,
        )

    def _samples(self, task: str, args: dict[str, Any]) -> int:
        """Counted from the task itself, which is made without a model."""
        from inspect_ai._util.registry import registry_create

        try:
            return len(registry_create("task", full_name(task), **args).dataset)
        except LookupError:
            self.unknown.append(f"rollouts of '{task}': the task is not installed; give its samples")
            return 0

    def _dollars(self, model: str | None, role: str, usage: Usage) -> float | None:
        if model is None:
            self.unknown.append(f"dollars: no {role} is named")
            return None
        price = self.book.price(model)
        if price is None:
            self.unknown.append(f"dollars: the price file does not know '{model}'")
            return None
        return price.dollars(usage)


_SECTIONS = {"corpus": ("corpora", "rows"), "training": ("checkpoints", "updates"), "evaluation": ("evaluations", "rollouts")}
"""Kind of cell to the heading above its cells, and to the field that counts its work."""
_LONGEST_WORD = 40
_NONE = "—"


def render(found: Cost) -> Table:
    """The cost as a table that fits 80 columns, a section a kind of cell, totals in the headings and the last line."""
    caption = "\n".join([*(f"Not priced: {reason}." for reason in found.unknown), *found.warnings]) or None
    title = f"{found.experiment} on {found.device}: what is still to be made"
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    words = [word for cell in found.cells for word in cell.name.split()]
    # Names break between words only, unless a word alone leaves no room for the numbers.
    table.add_column("cell", overflow="fold", min_width=min(max(map(len, words), default=0) + 2, _LONGEST_WORD))
    judged = any(cell.judge_calls for cell in found.cells)
    for name in ("work", "tokens", *(["judge"] if judged else []), "time", "$", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, (heading, field) in _SECTIONS.items():
        cells = [cell for cell in found.cells if cell.kind == kind]
        if cells:
            table.add_row(Text(f"{heading}: {_short(found.total(field))} {field}", style="bold"))
        for cell in cells:
            work = "there" if cell.done else _short(getattr(cell, field))
            table.add_row(Padding(Text(cell.name), (0, 0, 0, 2)), work, *_numbers(cell.model_dump(), judged))
        table.add_section()
    totals = {name: found.total(name) for name in ("tokens", "judge_calls", "hours", "dollars", "gigabytes")}
    table.add_row("all that is missing", "", *_numbers(totals, judged))
    return table


def _numbers(values: Mapping[str, Any], judged: bool) -> list[str]:
    hours, dollars, gigabytes = (values[name] for name in ("hours", "dollars", "gigabytes"))
    return [
        _short(values["tokens"]),
        *([_short(values["judge_calls"])] if judged else []),
        _NONE if hours is None else in_words(hours),
        _NONE if dollars is None else _in_dollars(dollars),
        _NONE if gigabytes is None else _in_bytes(gigabytes * 1e9),
    ]


def in_words(hours: float) -> str:
    """A time in seconds, minutes or hours, whichever reads best: `2 s`, `45 min`, `6.8 h`."""
    seconds = hours * 3600
    if 0 < seconds < 1:
        return "<1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.3g} h" if hours < 100 else f"{hours:,.0f} h"


def _in_dollars(dollars: float) -> str:
    if 0 < dollars < 0.01:
        return "<0.01"
    return f"{dollars:.2f}" if 0 < dollars < 100 else f"{dollars:,.0f}"


def _in_bytes(count: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.{1 if count < 10 * size else 0}f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _short(value: float | None) -> str:
    if value is None:
        return _NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.0f}"
