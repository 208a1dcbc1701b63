"""One checkpoint through a suite of tasks, and its place among others: `msm-bench bench MODEL`.

A suite is a YAML file in `suites/`. The logs go to LOGS/bench/<model>-<suite>-<key>/ through Inspect's own `eval_set`; the same
command goes on with a run that was stopped, and costs a look where all is there. The key holds what makes the result: the
model's content, the tasks and their settings, the grader.
"""

import contextvars
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msm_bench.analysis.compare import Comparison, compare
from msm_bench.analysis.contrasts import PRIMARY
from msm_bench.analysis.published import published
from msm_bench.analysis.render import render_comparison
from msm_bench.analysis.table import read_table
from msm_bench.artefacts import sha256_of_value
from msm_bench.checkpoints.manifest import Checkpoint, read_checkpoint
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.experiment import costs
from msm_bench.experiment.cells import slug
from msm_bench.experiment.evaluating import check_ended, drop_superseded, make_task
from msm_bench.experiment.settings import Evaluation, Experiment

SUITES = Path(__file__).parent / "suites"


class SuiteTask(Evaluation):
    """A task of a suite. `elsewhere` holds arguments for models that are not `msm/`, whose likelihoods cannot be had."""

    elsewhere: dict[str, Any] = Field(default={})


class Suite(BaseModel):
    """A suite file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    summary: str
    evals: tuple[SuiteTask, ...] = Field(min_length=1)


class Place(BaseModel):
    """One line of a table: an arm's number on a task and key. `own` marks the checkpoint that was benched."""

    model_config = ConfigDict(frozen=True)

    task: str
    key: str
    group: str
    arm: str
    estimate: float
    low: float | None
    high: float | None
    own: bool


class Benched(BaseModel):
    """What a suite gave: its logs, the comparison, and by task, key and group the places, the highest number first."""

    model_config = ConfigDict(frozen=True)

    model: str
    suite: str
    logs: Path
    against: str | None
    comparison: Comparison
    places: tuple[Place, ...]


def suites() -> list[str]:
    """The names of the shipped suites."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """A shipped suite by name, or a YAML file.

    Raises:
        UnknownNameError: it is neither.
        RequestError: the file does not fit.
    """
    path = SUITES / f"{name}.yaml" if str(name) in suites() else Path(name).expanduser()
    if not path.is_file():
        raise UnknownNameError("suite", name, suites())
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        problem = " ".join(str(error).split())[:300]
        raise RequestError(f"The suite {path} does not fit: {problem}.", f"Write it in the form of {SUITES}.") from error


def bench_experiment(model: str, suite: str = "full", grader: str | None = None) -> Experiment:
    """The suite as an experiment of one arm, which is what prices are made from."""
    name = _as_inspect(model)
    evals = [_for_model(each, name) for each in load_suite(suite).evals]
    return Experiment(name=f"bench-{slug(model)}", base=name, arms={name: ""}, evals=tuple(evals), grader=grader)


def price(model: str, suite: str = "full", grader: str | None = None, device: str = "h100") -> costs.Cost:
    """What `bench` would take. Loads no weights and asks nobody.

    Raises:
        RequestError: no such suite or task, or a device without a measured rate.
    """
    experiment = bench_experiment(model, suite, grader)
    record = _record(experiment.base)
    if record is not None:
        parameters = costs.load_rates().parameters.get(f"msm/{record.base.name}")
        experiment = experiment.model_copy(update={"base_parameters": parameters})
    return costs.cost(experiment, device)


def bench(
    model: str,
    suite: str = "full",
    against: str | None = None,
    grader: str | None = None,
    logs: Path = Path("logs"),
    *,
    model_args: dict[str, Any] | None = None,
    display: Literal["rich", "plain", "none"] = "none",
) -> Benched:
    """Runs what is missing of a suite and reads the result.

    Args:
        model: A checkpoint's folder, a name that `msm/` knows, or any model as Inspect names it.
        suite: `quick`, `full`, or a YAML file.
        against: `published:NAME`, or a log or folder of logs; None sets nothing beside.
        grader: The judge, as Inspect names it; the default grader where it is None.
        logs: Folder of logs.
        model_args: Arguments for the model's provider.
        display: Inspect's display.

    Raises:
        RequestError: no such suite, task, model or published number, or arms that were not measured alike.
        WorkError: a task did not end.
    """
    experiment = bench_experiment(model, suite, grader)
    if against is not None and against.startswith("published:"):
        published(against)  # a wrong name is told before anything is spent
    elif against is not None and not Path(against).exists():
        raise RequestError(f"There is no log or folder '{against}'.", "Name a folder of logs, or published:NAME.")
    record = _record(experiment.base)
    folder = logs / "bench" / f"{slug(model)}-{slug(Path(suite).stem)}-{_key(experiment, record)[:8]}"
    run = functools.partial(_run, experiment, record, folder, model_args or {}, display)
    # Inspect leaves the evaluated model behind as the active one; in a context of its own nothing is left to whoever called.
    contextvars.copy_context().run(run)
    table = read_table(folder)
    own = set(map(str, table["arm"].unique()))
    comparison = compare(table, against=against)
    places = tuple(_places(comparison, own))
    return Benched(model=experiment.base, suite=suite, logs=folder, against=against, comparison=comparison, places=places)


def _run(experiment: Experiment, record: Checkpoint | None, folder: Path, model_args: dict[str, Any], display: Any) -> None:
    from inspect_ai import eval_set

    import msm_bench._registry  # noqa: F401  (makes tasks and the `msm/` provider known)

    facts = {"arm": _arm(experiment.base, record), "base": record.base.name if record else None}
    success, headers = eval_set(
        [make_task(each) for each in experiment.evals],
        log_dir=str(folder),
        model=experiment.base,
        model_args=model_args,
        model_roles={"grader": experiment.grader} if experiment.grader else None,
        metadata={name: value for name, value in facts.items() if value is not None},
        retry_attempts=2,
        retry_wait=1,
        display=display,
        log_realtime=False,
        score_display=False,
        log_dir_allow_dirty=True,
    )
    check_ended(success, headers, len(experiment.evals), "The same command goes on from the last sample.")
    drop_superseded(folder)


def _as_inspect(model: str) -> str:
    """The model's name with its provider: a folder, or a name without a slash, is `msm/`."""
    if Path(model).expanduser().is_dir():
        return f"msm/{Path(model).expanduser().absolute()}"
    return model if "/" in model else f"msm/{model}"


def _for_model(task: SuiteTask, model: str) -> Evaluation:
    plain = task.model_dump(exclude={"elsewhere"})
    if not model.startswith("msm/"):
        plain["args"] = {**task.args, **task.elsewhere}
    return Evaluation.model_validate(plain)


def _record(model: str) -> Checkpoint | None:
    folder = Path(model.removeprefix("msm/"))
    return read_checkpoint(folder) if model.startswith("msm/") and folder.is_dir() else None


def _arm(model: str, record: Checkpoint | None) -> str:
    return Path(model).name if record is not None else model.removeprefix("msm/")


def _key(experiment: Experiment, record: Checkpoint | None) -> str:
    evals = [each.model_dump(mode="json", exclude={"samples"}) for each in experiment.evals]
    return sha256_of_value([record.id if record else experiment.base, evals, experiment.grader])


def _places(comparison: Comparison, own: set[str]) -> list[Place]:
    """Own estimates with those that stand beside them, the highest first; only tables that hold another one."""
    tables: dict[tuple[str, str, str], list[Place]] = {}
    for one in comparison.estimates:
        if one.key in (*PRIMARY, "executed") and one.estimate is not None:
            mine = Place(
                task=one.task,
                key=one.key,
                group=one.group,
                arm=one.arm,
                estimate=one.estimate,
                low=one.low,
                high=one.high,
                own=one.arm in own,
            )
            tables.setdefault((one.task, one.key, one.group), []).append(mine)
    for value in comparison.published:
        table = tables.get((value.task, value.key, value.group))
        if table is not None:
            arm = f"{value.arm} ({value.where}, {value.model})"
            table.append(
                Place(
                    task=value.task,
                    key=value.key,
                    group=value.group,
                    arm=arm,
                    estimate=value.value,
                    low=None,
                    high=None,
                    own=False,
                )
            )
    shown = [table for table in tables.values() if {place.own for place in table} == {True, False}]
    return [place for table in shown for place in sorted(table, key=lambda each: (-each.estimate, each.arm))]


def render(found: Benched) -> RenderableType:
    """The estimates, then a table for every number that others stand beside."""
    parts: list[RenderableType] = [render_comparison(found.comparison)]
    for task, key, group in dict.fromkeys((one.task, one.key, one.group) for one in found.places):
        rows = [one for one in found.places if (one.task, one.key, one.group) == (task, key, group)]
        parts += [Text(), _table(f"{task}, {key}" + ("" if group == "all" else f" on {group}"), rows)]
    parts += [Text(), Text(f"Logs: {found.logs}. A report: msm-bench report {found.logs} --out DIR")]
    return Group(*parts)


def _table(title: str, rows: Sequence[Place]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("place", "arm", "", "95 %"):
        table.add_column(heading, justify="right" if heading in ("place", "") else "left", overflow="fold")
    for number, one in enumerate(rows, 1):
        interval = "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(str(number), one.arm, f"{one.estimate:.3f}", interval, style="bold" if one.own else None)
    return table
