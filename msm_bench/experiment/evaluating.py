"""Making an evaluation cell: every task of the experiment on one arm and seed, through Inspect's own `eval_set`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msm_bench.analysis.recipes import stage_recipes
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.experiment.cells import EvalCell
from msm_bench.experiment.places import DONE_FILE, Places
from msm_bench.experiment.settings import Evaluation, Experiment

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

    from msm_bench.experiment.serving.server import Server

_OWN = "msm_bench/"
Display = Literal["rich", "plain", "none"]
_WRITES = 200
"""How often a log is written while it grows. Each time it is written whole, so that a long one is not written every sample."""


def evaluate(cell: EvalCell, experiment: Experiment, places: Places, display: Display, server: "Server | None" = None) -> None:
    """Runs what is missing of a cell's tasks, from the last sample that is on disk.

    Args:
        cell: The cell.
        experiment: Its experiment.
        places: Where things lie.
        display: Inspect's.
        server: One that serves the cell's adapter, which is checked first; None evaluates in this process.

    Raises:
        RequestError: there is no such task, or it refuses its arguments.
        WorkError: a task did not end, or the server serves something else; the reason is the message.
        KeyboardInterrupt: it was stopped from the keyboard; what is done stays.
    """
    from inspect_ai import eval_set

    folder = places.folder(cell)
    tasks = [task_of(each, cell) for each in experiment.evals]
    most = max(len(task.dataset) * each.epochs for task, each in zip(tasks, experiment.evals, strict=True))
    buffer = max(1, most // _WRITES)
    metadata = metadata_of(cell, experiment, places)
    if server is None:
        how: dict[str, Any] = {"model": model_of(cell, experiment, places.root), "model_args": experiment.model_args}
    else:
        use = server.model(adapter_of(cell, places), dict(zip(_names(tasks), (task.config for task in tasks), strict=True)))
        how, metadata = use.arguments, {**metadata, **use.metadata}
    success, headers = eval_set(
        tasks,
        log_dir=str(folder),
        model_roles={"grader": experiment.grader} if experiment.grader else None,
        metadata=metadata,
        retry_attempts=2,
        retry_wait=1,
        display=display,
        log_buffer=buffer,
        # Samples between two writes are kept in Inspect's database on this machine.
        log_realtime=buffer > 1,
        score_display=False,
        log_dir_allow_dirty=True,
        **how,
    )
    check_ended(success, headers, len(tasks), "Run again to go on.")
    drop_superseded(folder)
    (folder / DONE_FILE).touch()


def check_ended(success: bool, headers: "Sequence[EvalLog]", tasks: int, mend: str) -> None:
    """Looks at what `eval_set` gave back for so many tasks.

    Raises:
        WorkError: it did not end all of them; the reasons, and what to do.
        KeyboardInterrupt: it was interrupted. Interrupted at some moments it gives back success and no log.
    """
    ended = sum(header.status == "success" for header in headers)
    if ended < tasks and (success or any(header.status == "cancelled" for header in headers)):
        raise KeyboardInterrupt
    if not success:
        broken = [header for header in headers if header.status != "success"]
        reasons = {(header.error.message if header.error else header.status) for header in broken}
        raise WorkError(f"{len(broken)} of {len(headers)} tasks did not end: {'; '.join(sorted(reasons))[:500]}.", mend)


def drop_superseded(folder: Path) -> None:
    """A killed attempt leaves its log beside that of the attempt which took its samples over and went on; it goes."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    logs = [(info, read_eval_log(info, header_only=True)) for info in list_eval_logs(str(folder))]
    finished = {log.eval.task_id for _, log in logs if log.status == "success"}
    for info, log in logs:
        if log.status == "started" and log.eval.task_id in finished:
            Path(info.name.removeprefix("file://")).unlink(missing_ok=True)


def _names(tasks: Sequence[Any]) -> list[str]:
    """A name of its own for each task; one may stand twice in an experiment, with other settings."""
    counts: Counter[str] = Counter()
    names = []
    for task in tasks:
        counts[task.name] += 1
        names.append(task.name if counts[task.name] == 1 else f"{task.name} #{counts[task.name]}")
    return names


def metadata_of(cell: EvalCell, experiment: Experiment, places: Places) -> dict[str, Any]:
    """What every log of a cell says about it; absent keys do not apply."""
    metadata = {
        "experiment": experiment.name,
        "arm": cell.arm,
        "stages": cell.stages.text,
        "base": experiment.base,
        "recipe": experiment.recipe if cell.checkpoint else None,
        "seed": cell.seed,
        "checkpoint": cell.checkpoint.key if cell.checkpoint else None,
        "recipes": stage_recipes(f"msm/{places.folder(cell.checkpoint)}") if cell.checkpoint else None,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def model_of(cell: EvalCell, experiment: Experiment, root: Path) -> str:
    """The model of a cell as Inspect names it.

    It is a part of the log's identity, by which `eval_set` knows what to go on with: under a relative `root` it is the same on
    every machine, wherever its working folder is.
    """
    adapter = cell.stages.untrained("adapter")
    if cell.checkpoint is not None:
        return f"msm/{cell.checkpoint.folder(root)}"
    return experiment.base if adapter is None else f"msm/{adapter}"


def adapter_of(cell: EvalCell, places: Places) -> Path | None:
    """The folder of the adapter that a server serves for a cell, None for the base alone."""
    adapter = cell.stages.untrained("adapter")
    if cell.checkpoint is not None:
        return places.folder(cell.checkpoint)
    return None if adapter is None else Path(adapter)


def task_of(evaluation: Evaluation, cell: EvalCell) -> Any:
    """The task, with the arm's spec in its prompt where the arm puts one there.

    Raises:
        RequestError: there is no such task.
    """
    spec = cell.stages.untrained("in_context")
    return make_task(evaluation, **({"spec": spec} if spec is not None else {}))


def check_tasks(experiment: Experiment) -> None:
    """Look at the tasks before anything is trained for them: this package's own are made once, without a model.

    One of another package need be known only where it is evaluated; where it is known here, its arguments' names are compared.

    Raises:
        RequestError: there is no such task, it takes no such argument, or not with this value.
    """
    import inspect

    from inspect_ai._util.registry import registry_find, registry_info, registry_lookup

    import msm_bench._registry  # noqa: F401  (makes the tasks known)

    for evaluation in experiment.evals:
        name = full_name(evaluation.task)
        task: Any = registry_lookup("task", name)
        if task is None and not name.startswith(_OWN):
            continue
        if task is None:
            found = registry_find(lambda info: info.type == "task" and info.name.startswith(_OWN))
            raise UnknownNameError(
                "task", evaluation.task, sorted(registry_info(each).name.removeprefix(_OWN) for each in found)
            )
        parameters = inspect.signature(task).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            for argument in evaluation.args:
                if argument not in parameters:
                    raise UnknownNameError(f"argument of '{evaluation.task}'", argument, sorted(parameters))
        if name.startswith(_OWN):
            make_task(evaluation)


def full_name(task: str) -> str:
    """A task's name as Inspect registers it; one without a package is this package's."""
    return task if "/" in task else f"{_OWN}{task}"


def make_task(evaluation: Evaluation, **more: Any) -> Any:
    """The task that an evaluation names, with its arguments and `more`, its epochs and its limits.

    Raises:
        RequestError: there is no such task.
    """
    from inspect_ai import task_with
    from inspect_ai._util.registry import registry_create
    from inspect_ai.model import GenerateConfig

    name = full_name(evaluation.task)
    try:
        task = registry_create("task", name, **{**evaluation.args, **more})
    except LookupError as error:
        raise RequestError(
            f"There is no task '{name}'.", "See 'inspect list tasks', and install the package that has it."
        ) from error
    changes = GenerateConfig(max_tokens=evaluation.max_tokens, temperature=evaluation.temperature)
    return task_with(task, epochs=evaluation.epochs, config=task.config.merge(changes))
