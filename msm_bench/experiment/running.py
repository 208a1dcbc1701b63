"""Running an experiment: every cell that is not there yet, in order, each on disk before the next begins.

A cell that fails is written down and the others go on; a cell whose parent failed waits for it. The same command goes on with
what is missing: a finished cell costs a look at its folder, a half-trained one goes on from its last state, a half-evaluated
one from its last sample (Inspect's `eval_set`).
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import MANIFEST_FILE, seal, write_text_atomically, writing_folder
from msm_bench.checkpoints.manifest import CHECKPOINT_FILE
from msm_bench.errors import MsmBenchError, RequestError, WorkError
from msm_bench.experiment.cells import CorpusCell, EvalCell, Plan, TrainCell, plan
from msm_bench.experiment.settings import Evaluation, Experiment

Cell = CorpusCell | TrainCell | EvalCell


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


class Outcome(BaseModel):
    """What a run did, by the names of cells."""

    model_config = ConfigDict(frozen=True)

    made: tuple[str, ...]
    standing: tuple[str, ...]
    failed: tuple[str, ...]
    waiting: tuple[str, ...]
    stopped: str | None
    """Why the run stopped before its end, None where it did not."""


def is_done(cell: Cell, places: Places) -> bool:
    """Whether a cell's result is on disk, whole."""
    match cell:
        case CorpusCell():
            return cell.kind == "folder" or (cell.folder(places.root) / MANIFEST_FILE).is_file()
        case TrainCell():
            return (cell.folder(places.root) / CHECKPOINT_FILE).is_file()
        case EvalCell():
            return (cell.folder(places.logs) / "done").is_file()


def run(
    experiment: Experiment,
    root: Path = Path("runs"),
    logs: Path = Path("logs"),
    *,
    say: Callable[[str], None] = lambda line: None,
    display: Literal["rich", "plain", "none"] = "none",
) -> Outcome:
    """Make every cell that is missing.

    Args:
        experiment: What to run.
        root: Folder of corpora, checkpoints and the run's state.
        logs: Folder of logs; the experiment's go into a folder of its name.
        say: Gets a line whenever a cell begins or ends.
        display: Inspect's display of the evaluations.

    Raises:
        RequestError: the plan cannot be made, or another process runs this experiment.
    """
    made = plan(experiment)
    places = Places.of(experiment, root, logs)
    with _claimed(places):
        write_text_atomically(places.state / "experiment.json", experiment.model_dump_json(indent=2) + "\n")
        _put_aside_stale(made, places)
        return _Runner(made, places, say, display).run()


@dataclass
class _Runner:
    plan: Plan
    places: Places
    say: Callable[[str], None]
    display: Literal["rich", "plain", "none"]

    def run(self) -> Outcome:
        cells = list(self.plan.cells())
        results: dict[str, list[str]] = {"made": [], "standing": [], "failed": [], "waiting": []}
        bad: set[str] = set()
        begun, stopped = time.monotonic(), None
        for number, cell in enumerate(cells, 1):
            where = f"[{number}/{len(cells)}] {cell.name}"
            if is_done(cell, self.places):
                results["standing"].append(cell.name)
                continue
            if any(need.key in bad for need in _needs(cell)):
                bad.add(cell.key)
                results["waiting"].append(cell.name)
                self.say(f"{where}: waits for a cell that failed")
                continue
            stopped = self._over_budget(begun)
            if stopped:
                self.say(f"{where}: not begun, {stopped}")
                break
            self.say(f"{where}: begins{_time_left(begun, len(results['made']), len(cells) - number + 1)}")
            since = time.monotonic()
            try:
                self._make(cell)
            except (MsmBenchError, OSError, RuntimeError, ValueError) as error:
                bad.add(cell.key)
                results["failed"].append(cell.name)
                self._write_failure(cell, error)
                self.say(f"{where}: failed: {error}")
            else:
                self.places.failure(cell).unlink(missing_ok=True)
                results["made"].append(cell.name)
                self.say(f"{where}: done in {time.monotonic() - since:.0f} s")
        return Outcome.model_validate({**results, "stopped": stopped})

    def _make(self, cell: Cell) -> None:
        match cell:
            case CorpusCell():
                self._corpus(cell)
            case TrainCell():
                self._train(cell)
            case EvalCell():
                self._evaluate(cell)

    def _corpus(self, cell: CorpusCell) -> None:
        out = cell.folder(self.places.root)
        if cell.kind == "mix":
            from msm_bench.corpus.mix import local_mix
            from msm_bench.corpus.rows import CHATS_FILE, write_chats

            with writing_folder(out) as folder:
                write_chats(folder / CHATS_FILE, local_mix())
                seal(folder, "chats", settings={"mix": "local"})
            return
        from msm_bench.corpus.generate import generate

        experiment = self.plan.experiment
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

    def _train(self, cell: TrainCell) -> None:
        from msm_bench.trainers import train

        experiment, root = self.plan.experiment, self.places.root
        data = [
            str(corpus.folder(root)) if share is None else f"{corpus.folder(root)}={share}" for corpus, share in cell.corpora
        ]
        train(
            cell.stage.kind,
            experiment.recipe,
            experiment.base.removeprefix("msm/"),
            data,
            cell.folder(root),
            parent=cell.parent.folder(root) if cell.parent else None,
            overrides=experiment.overrides_of(cell.stage.kind, cell.seed),
            grader=experiment.grader if cell.stage.kind == "deliberative" else None,
            allow_control=experiment.allow_control,
            allow_few_updates=experiment.allow_few_updates,
            waive=experiment.waive,
        )

    def _evaluate(self, cell: EvalCell) -> None:
        from inspect_ai import eval_set

        experiment = self.plan.experiment
        folder = cell.folder(self.places.logs)
        model = _model(cell, experiment, self.places.root)
        metadata = {
            "experiment": experiment.name,
            "arm": cell.arm,
            "stages": cell.stages.text,
            "base": experiment.base,
            "recipe": experiment.recipe if cell.checkpoint else None,
            "seed": cell.seed,
            "checkpoint": cell.checkpoint.key if cell.checkpoint else None,
        }
        success, headers = eval_set(
            [_task(each, cell) for each in experiment.evals],
            log_dir=str(folder),
            model=model,
            model_args=experiment.model_args,
            model_roles={"grader": experiment.grader} if experiment.grader else None,
            metadata={name: value for name, value in metadata.items() if value is not None},
            retry_attempts=2,
            retry_wait=1,
            display=self.display,
            log_realtime=False,
            score_display=False,
            log_dir_allow_dirty=True,
        )
        if not success:
            broken = [header for header in headers if header.status != "success"]
            reasons = {(header.error.message if header.error else header.status) for header in broken}
            raise WorkError(
                f"{len(broken)} of {len(headers)} tasks did not end: {'; '.join(sorted(reasons))[:500]}.", "Run again to go on."
            )
        (folder / "done").touch()

    def _over_budget(self, begun: float) -> str | None:
        budget = self.plan.experiment.budget
        hours = (time.monotonic() - begun) / 3600
        if budget.hours is not None and hours >= budget.hours:
            return f"the budget of {budget.hours:g} hours is spent"
        if budget.dollars is not None:
            spent = dollars_spent(self.plan, self.places)
            if spent >= budget.dollars:
                return f"${spent:.2f} of the budget of ${budget.dollars:g} are spent"
        return None

    def _write_failure(self, cell: Cell, error: Exception) -> None:
        path = self.places.failure(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        failure = Failure(cell=cell.name, reason=f"{type(error).__name__}: {error}"[:2000], at=datetime.now(UTC))
        write_text_atomically(path, failure.model_dump_json(indent=2) + "\n")


def dollars_spent(made: Plan, places: Places) -> float:
    """What the models of the experiment's logs have cost so far, by the price file.

    Raises:
        RequestError: the price file does not know one of them.
    """
    from inspect_ai.log import list_eval_logs, read_eval_log

    from msm_bench.corpus.pipeline.prices import Usage, load_prices

    book, total = load_prices(), 0.0
    for cell in made.evaluations:
        folder = cell.folder(places.logs)
        for info in list_eval_logs(str(folder)) if folder.is_dir() else []:
            log = read_eval_log(info, header_only=True)
            for model, usage in (log.stats.model_usage or {}).items():
                price = book.price(model)
                if price is None:
                    raise RequestError(
                        f"There is no price for '{model}', and a budget in dollars needs one.", "Set hours instead."
                    )
                read, write = usage.input_tokens_cache_read or 0, usage.input_tokens_cache_write or 0
                counted = Usage(input=usage.input_tokens, output=usage.output_tokens, cache_read=read, cache_write=write)
                total += price.dollars(counted)
    return total


def detach(arguments: list[str], state: Path) -> Path:
    """Starts `msm-bench` with these arguments in a process that outlives this one; returns the file that it writes to."""
    state.mkdir(parents=True, exist_ok=True)
    log = state / "run.log"
    with log.open("ab") as out:
        subprocess.Popen(
            [sys.executable, "-m", "msm_bench.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ,
        )
    return log


def _needs(cell: Cell) -> Iterator[Cell]:
    match cell:
        case TrainCell():
            yield from (corpus for corpus, _ in cell.corpora)
            if cell.parent is not None:
                yield cell.parent
        case EvalCell() if cell.checkpoint is not None:
            yield cell.checkpoint


def _model(cell: EvalCell, experiment: Experiment, root: Path) -> str:
    adapter = cell.stages.untrained("adapter")
    if cell.checkpoint is not None:
        return f"msm/{cell.checkpoint.folder(root).absolute()}"
    return experiment.base if adapter is None else f"msm/{adapter}"


def _task(evaluation: Evaluation, cell: EvalCell) -> Any:
    from inspect_ai import task_with
    from inspect_ai._util.registry import registry_create
    from inspect_ai.model import GenerateConfig

    name = evaluation.task if "/" in evaluation.task else f"msm_bench/{evaluation.task}"
    spec = cell.stages.untrained("in_context")
    arguments = {**evaluation.args, **({"spec": spec} if spec is not None else {})}
    try:
        task = registry_create("task", name, **arguments)
    except LookupError as error:
        raise RequestError(
            f"There is no task '{name}'.", "See 'inspect list tasks', and install the package that has it."
        ) from error
    changes = GenerateConfig(max_tokens=evaluation.max_tokens, temperature=evaluation.temperature)
    return task_with(task, epochs=evaluation.epochs, config=task.config.merge(changes))


def _put_aside_stale(made: Plan, places: Places) -> None:
    """Moves logs of arms that were asked for otherwise out of the way, so that nothing compares them with the new ones."""
    if not places.logs.is_dir():
        return
    wanted = {cell.folder(places.logs).name for cell in made.evaluations}
    for folder in sorted(places.logs.iterdir()):
        if folder.is_dir() and folder.name not in wanted:
            aside = places.logs.with_name(f"{places.logs.name}.stale") / folder.name
            aside.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


@contextmanager
def _claimed(places: Places) -> Iterator[None]:
    places.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(places.state / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise RequestError(
            f"Another process runs '{places.state.name}'.", "Look at it with 'msm-bench status', or wait for its end."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _time_left(begun: float, made: int, left: int) -> str:
    if made == 0:
        return ""
    minutes = (time.monotonic() - begun) / made * left / 60
    return f" (about {minutes:.0f} min left)"


def render(outcome: Outcome, name: str) -> str:
    """The outcome in a few lines."""
    lines = [f"{len(outcome.made)} cells made, {len(outcome.standing)} were there, {len(outcome.failed)} failed."]
    lines += [f"Failed: {cell}" for cell in outcome.failed]
    lines += [f"Waiting for one that failed: {cell}" for cell in outcome.waiting]
    if outcome.stopped:
        lines.append(f"Stopped: {outcome.stopped}. The same command goes on.")
    elif outcome.failed:
        lines.append(f"The reasons: msm-bench status {name}. The same command tries them again.")
    else:
        lines.append(f"Read it: msm-bench compare logs/{name}")
    return "\n".join(lines)
