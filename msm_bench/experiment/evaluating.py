"""Making an evaluation cell: every task of the experiment on one arm and seed, through Inspect's own `eval_set`."""

from pathlib import Path
from typing import Any, Literal

from msm_bench.errors import RequestError, WorkError
from msm_bench.experiment.cells import EvalCell
from msm_bench.experiment.places import DONE_FILE, Places
from msm_bench.experiment.settings import Evaluation, Experiment

Display = Literal["rich", "plain", "none"]
_WRITES = 200
"""How often a log is written while it grows. Each time it is written whole, so that a long one is not written every sample."""


def evaluate(cell: EvalCell, experiment: Experiment, places: Places, display: Display) -> None:
    """Runs what is missing of a cell's tasks, from the last sample that is on disk.

    Raises:
        RequestError: there is no such task, or it refuses its arguments.
        WorkError: a task did not end; the reason is the message.
        KeyboardInterrupt: it was stopped from the keyboard; what is done stays.
    """
    from inspect_ai import eval_set

    folder = places.folder(cell)
    tasks = [task_of(each, cell) for each in experiment.evals]
    most = max(len(task.dataset) * each.epochs for task, each in zip(tasks, experiment.evals, strict=True))
    buffer = max(1, most // _WRITES)
    success, headers = eval_set(
        tasks,
        log_dir=str(folder),
        model=model_of(cell, experiment, places.root),
        model_args=experiment.model_args,
        model_roles={"grader": experiment.grader} if experiment.grader else None,
        metadata=metadata_of(cell, experiment),
        retry_attempts=2,
        retry_wait=1,
        display=display,
        log_buffer=buffer,
        # Samples between two writes are kept in Inspect's database on this machine.
        log_realtime=buffer > 1,
        score_display=False,
        log_dir_allow_dirty=True,
    )
    if not success:
        broken = [header for header in headers if header.status != "success"]
        reasons = {(header.error.message if header.error else header.status) for header in broken}
        raise WorkError(
            f"{len(broken)} of {len(headers)} tasks did not end: {'; '.join(sorted(reasons))[:500]}.", "Run again to go on."
        )
    (folder / DONE_FILE).touch()


def metadata_of(cell: EvalCell, experiment: Experiment) -> dict[str, Any]:
    """What every log of a cell says about it; absent keys do not apply."""
    metadata = {
        "experiment": experiment.name,
        "arm": cell.arm,
        "stages": cell.stages.text,
        "base": experiment.base,
        "recipe": experiment.recipe if cell.checkpoint else None,
        "seed": cell.seed,
        "checkpoint": cell.checkpoint.key if cell.checkpoint else None,
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


def task_of(evaluation: Evaluation, cell: EvalCell) -> Any:
    """The task, with the arm's spec in its prompt where the arm puts one there.

    Raises:
        RequestError: there is no such task.
    """
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
