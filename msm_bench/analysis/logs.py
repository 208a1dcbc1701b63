"""Which logs lie under a path, and what their headers say about the arm that was measured.

A retried run and a log that was scored again both leave an older file beside the newer one. Both carry the same `task_id`, so
of each `task_id` one log counts: the one that is furthest on. The others are named in the notes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.analysis.recipes import recipe_label, stage_recipes
from msm_bench.errors import RequestError

PART = "random_part"
"""Log metadata in which a log says that it holds a random part of a run, and of which."""

_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens", "reasoning_effort", "reasoning_tokens")
# Which samples are run and who is asked about: parts of a sample's or an arm's identity, no settings of the measurement.
_NOT_SETTINGS = ("scenario", "goal", "value", "split", "domain", "dimension", "limit_per_value", "in_context")


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str


class CheckpointFacts(BaseModel):
    """The few fields of a checkpoint's `checkpoint.json` that an analysis wants. The rest is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    base: _Base | None = None
    recipe: Any = None
    seed: int | None = None


class LogHeader(BaseModel):
    """What one log says about itself before its samples are read.

    `seed` is None when neither the log nor the checkpoint names a training seed. `recipe` is a label of `recipes`. `settings`
    is a JSON text of everything about sampling and the task that a comparison must hold fixed. `planned` lists the sample ids
    that the run was to do; it is empty for a log that holds a random part of them on purpose, and `part` then says which.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    arm: str
    task: str
    task_version: str
    model: str
    base: str
    seed: str | None
    recipe: str | None
    spec: str | None
    settings: str
    planned: tuple[str, ...]
    epochs: int
    status: str
    grader: str | None
    part: str | None = None


def find_logs(paths: Sequence[str | Path]) -> tuple[list[EvalLog], list[str]]:
    """The headers of the logs at or under `paths` that count, in the order of their paths, and notes on those left out.

    Raises:
        RequestError: A path does not exist, or nothing under the paths is a log.
    """
    files: dict[str, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = [_plain(info.name) for info in list_eval_logs(str(path), descending=False)]
            files.update(dict.fromkeys(sorted(found)))
        elif path.is_file():
            files[str(path)] = None
        else:
            raise RequestError(f"There is no log file or folder at {path}.", "Name a log or a folder of logs that exists.")
    if not files:
        where = ", ".join(map(str, paths))
        raise RequestError(f"No Inspect logs lie under {where}.", "Name the folder that holds the logs.")
    furthest: dict[str, EvalLog] = {}
    notes = []
    for name in files:
        log = read_eval_log(name, header_only=True)
        key = log.eval.task_id or log.eval.eval_id
        other = furthest.get(key)
        if other is not None:
            older, log = sorted((other, log), key=_progress)
            notes.append(f"{Path(older.location).name} is an earlier state of {Path(log.location).name} and is left out.")
        furthest[key] = log
    return sorted(furthest.values(), key=lambda log: log.location), notes


def describe(log: EvalLog) -> LogHeader:
    """The header's facts. Log metadata `arm`, `seed`, `recipe` and `base` win; the checkpoint fills in what they leave out."""
    spec, metadata = log.eval, log.eval.metadata or {}
    checkpoint = _checkpoint(spec.model)
    seed = metadata.get("seed", checkpoint.seed)
    task = spec.task.split("/")[-1]
    # Spec QA asks every arm about the spec that it rates against; elsewhere a spec in the prompt makes an arm of its own.
    rates_spec = task == "spec_qa"
    dropped = _NOT_SETTINGS if rates_spec else (*_NOT_SETTINGS, "spec")
    arguments = {name: value for name, value in spec.task_args.items() if name not in dropped}
    config = {**log.plan.config.model_dump(exclude_none=True), **spec.model_generate_config.model_dump(exclude_none=True)}
    settings = {"task": arguments, "sampling": {name: config[name] for name in _SAMPLING if name in config}}
    in_context = metadata.get("spec", spec.task_args.get("spec")) if not rates_spec or metadata.get("in_context") else None
    return LogHeader(
        path=_plain(log.location),
        arm=str(metadata.get("arm") or spec.model),
        task=task,
        task_version=str(metadata.get("task_version", spec.task_version)).split("-")[0],
        model=spec.model,
        base=str(metadata.get("base") or (checkpoint.base and checkpoint.base.name) or spec.model),
        seed=None if seed is None else str(seed),
        recipe=recipe_label(_stages(spec.model, metadata), _recipe(metadata.get("recipe", checkpoint.recipe))),
        spec=str(in_context) if in_context else None,
        settings=json.dumps(settings, sort_keys=True, default=str),
        planned=() if metadata.get(PART) else tuple(str(name) for name in spec.dataset.sample_ids or ()),
        epochs=spec.config.epochs or 1,
        status=log.status,
        grader=_grader(spec.model_roles),
        part=str(metadata[PART]) if metadata.get(PART) else None,
    )


def _stages(model: str, metadata: dict[str, Any]) -> dict[str, str]:
    """Trainer to recipe: what the log itself names, else what the checkpoint's manifests say."""
    named = metadata.get("recipes")
    return {str(key): str(value) for key, value in named.items()} if isinstance(named, dict) else stage_recipes(model)


def _plain(location: str) -> str:
    return location.removeprefix("file://")


def _progress(log: EvalLog) -> tuple[bool, int, int, str, str]:
    results = log.results
    scored = max((score.scored_samples or 0 for score in results.scores), default=0) if results else 0
    return (log.status == "success", results.completed_samples if results else 0, scored, log.eval.created, log.location)


def _checkpoint(model: str) -> CheckpointFacts:
    path = Path(model.split("/", 1)[-1]) / "checkpoint.json"
    if not model.startswith("msm/") or not path.is_file():
        return CheckpointFacts()
    try:
        return CheckpointFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise RequestError(f"{path} cannot be read: {error.error_count()} fields are wrong.", "Train it again.") from error


def _recipe(recipe: Any) -> str | None:
    if recipe is None or isinstance(recipe, str):
        return recipe
    named = recipe.get("name") if isinstance(recipe, dict) else None
    return str(named) if named else json.dumps(recipe, sort_keys=True, default=str)


def _grader(roles: Any) -> str | None:
    grader = (roles or {}).get("grader")
    grader = grader[0] if isinstance(grader, list) else grader
    return str(grader.model) if grader is not None else None
