"""`train`: from corpora to a checkpoint, or to the plan of it.

The work in progress lies in `<out>.partial`: what was asked for, the last complete states, the losses. A killed run is gone on
with by the same call. The checkpoint appears at `out` in one step when it is whole, and then the partial folder goes.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel

from msm_bench.artefacts import sha256_of_value, write_text_atomically
from msm_bench.checkpoints.manifest import Checkpoint, Data, read_checkpoint
from msm_bench.errors import RequestError, WorkError
from msm_bench.trainers import data as rows_of
from msm_bench.trainers.contract import Example, find_trainer
from msm_bench.trainers.lineage import Lineage, check_parent, check_unchanged, trace
from msm_bench.trainers.packing import Sizes, check_fit, order, sizes
from msm_bench.trainers.plan import Plan, make_plan, model_config
from msm_bench.trainers.recipe import Recipe, ResolvedRecipe, resolve_recipe
from msm_bench.trainers.texts import check_texts

FEWEST_UPDATES = 100
"""Below this a run changes a model so little that a null result would mean nothing."""
_REQUEST_FILE = "request.json"


class Request(BaseModel, frozen=True):
    """What `train` was asked for; travels to the processes of a launched run."""

    name: str
    recipe: str
    model: str | None
    data: tuple[str, ...]
    out: str
    parent: str | None = None
    overrides: dict[str, str] = {}
    grader: str | None = None
    allow_control: bool = False
    allow_few_updates: bool = False
    waive: tuple[str, ...] = ()
    checked: bool = False
    """Whether the texts were checked already: the processes of a launched run need not do it again."""


@dataclass(frozen=True)
class Prepared:
    """A checked request, with everything but the weights."""

    request: Request
    recipe: ResolvedRecipe[Recipe]
    lineage: Lineage
    tokenizer: Any
    rows: rows_of.Rows
    train: list[Example]
    held_out: list[Example]
    data: Data
    sizes: Sizes
    notes: tuple[str, ...]

    def key(self) -> str:
        """Hash of what makes the result: equal for a call that goes on with a killed run."""
        parent = self.lineage.parent.sha256 if self.lineage.parent else None
        return sha256_of_value(
            [self.request.name, self.recipe.sha256, self.lineage.base.sha256, parent, self.data.sha256, self.request.grader]
        )


def train(
    name: str,
    recipe: str,
    model: str | None,
    data: Sequence[str | Path],
    out: str | Path,
    parent: str | Path | None = None,
    overrides: Mapping[str, str] | None = None,
    *,
    dry_run: bool = False,
    probe: bool = True,
    accelerate: str | None = None,
    grader: Any = None,
    allow_control: bool = False,
    allow_few_updates: bool = False,
    waive: Sequence[str] = (),
) -> Checkpoint | Plan:
    """Train a checkpoint, or say what training it would take.

    Args:
        name: The trainer: `msm`, `aft`, `deliberative`, or one of another package.
        recipe: `paper`, `laptop`, or a YAML file.
        model: The base model's name; None to take the parent's base.
        data: Folders of corpora; `FOLDER=SHARE` for a share of all rows.
        out: The checkpoint's folder. Where it holds the checkpoint of this very request, that is returned.
        parent: Folder of the adapter to continue.
        overrides: Setting of the recipe to its value as text.
        dry_run: Load no weights, write nothing, return the plan.
        probe: Measure the time of the plan with a few layers of random weights.
        accelerate: A shipped configuration (`gpu-8`, `cpu-2`, ...) or a file of Accelerate's, to run on several processes.
        grader: The judge of a second stage: a model's name, or a model of Inspect (then without `accelerate`).
        allow_control: Train on rows of a control spec.
        allow_few_updates: Train with fewer updates than `FEWEST_UPDATES`.
        waive: Checks of the texts to let through, each by its name (`corpus.checks.CHECKS`, or "substrate").

    Raises:
        RequestError: a check stopped the run; the message says which, and the mend.
        WorkError: the training failed; the last complete state stays in `<out>.partial`.
    """
    request = Request(
        name=name,
        recipe=recipe,
        model=model,
        data=tuple(str(each) for each in data),
        out=str(Path(out).expanduser().absolute()),
        parent=None if parent is None else str(parent),
        overrides=dict(overrides or {}),
        grader=None if grader is None else str(grader),
        allow_control=allow_control,
        allow_few_updates=allow_few_updates,
        waive=tuple(waive),
    )
    prepared = prepare(request)
    if dry_run:
        return make_plan(prepared.recipe, prepared.lineage, prepared.data, prepared.sizes, prepared.notes, probe)
    standing = _standing(prepared)
    if standing is not None:
        return standing
    if accelerate is not None:
        from msm_bench.trainers.launch import launch

        launch(request.model_copy(update={"checked": True}), accelerate)
    else:
        execute(prepared, grader)
    found = read_checkpoint(Path(request.out))
    if found is None:
        raise WorkError(f"The run ended without a checkpoint at '{request.out}'.", "Run the same command again.")
    return found


def prepare(request: Request) -> Prepared:
    """Everything that can be known and checked without the weights."""
    from msm_bench.trainers.loading import load_tokenizer

    trainer = find_trainer(request.name)
    recipe = resolve_recipe(request.recipe, request.name, trainer.recipe, request.overrides)
    settings = recipe.settings
    lineage = trace(request.model, request.parent)
    check_parent(lineage, settings)
    chosen = rows_of.choose(request.data, trainer.uses, settings, request.allow_control)
    if not request.checked:
        model_type = str(model_config(lineage).model_type)
        check_texts(chosen.parts, lineage.base.name, model_type, request.waive)
    made = trainer()
    made.check(chosen.train, settings, request.grader)
    tokenizer = load_tokenizer(lineage, settings)
    examples = rows_of.within_budget(made.examples(chosen.train, tokenizer, settings), settings)
    held_out = made.examples(chosen.held_out, tokenizer, settings)
    for part in (examples, held_out):
        rows_of.check_loss(part)
        check_fit(part, settings.max_tokens)
    rows = order(examples, settings.max_tokens, settings.packing, settings.epochs, settings.batch_rows, settings.seed)
    counted = sizes(examples, rows, settings.batch_rows, settings.micro_batch_rows)
    notes = _check_updates(request, counted)
    kept = {example.row for example in examples}
    return Prepared(
        request=request,
        recipe=recipe,
        lineage=lineage,
        tokenizer=tokenizer,
        rows=[row for row in chosen.train if row.id in kept],
        train=examples,
        held_out=held_out,
        data=rows_of.record(chosen, examples),
        sizes=counted,
        notes=(*notes, *_control_notes(chosen), *_waived_notes(request)),
    )


def execute(prepared: Prepared, grader: Any = None) -> None:
    """Train and save; called by every process of a launched run."""

    from msm_bench.trainers.loading import load_model
    from msm_bench.trainers.saving import save
    from msm_bench.trainers.stage import Stage
    from msm_bench.trainers.states import processes

    out = Path(prepared.request.out)
    partial = out.with_name(f"{out.name}.partial")
    state = processes()
    begun = time.monotonic()
    with _claimed(partial, prepared, state.is_main_process):
        state.wait_for_everyone()
        stage = Stage(
            recipe=prepared.recipe,
            model=load_model(prepared.lineage, prepared.recipe.settings),
            tokenizer=prepared.tokenizer,
            rows=prepared.rows,
            train=prepared.train,
            held_out=prepared.held_out,
            folder=partial,
            grader=grader if grader is not None else prepared.request.grader,
        )
        find_trainer(prepared.request.name)().fit(stage)
        check_unchanged(prepared.lineage)
        # A run that was killed and went on knows the time of its last part only, so it states none.
        cost = {"processes": float(state.num_processes)}
        if not (partial / "went-on").exists():
            cost["seconds"] = round(time.monotonic() - begun, 1)
        save(stage, prepared.request.name, prepared.lineage, prepared.data, prepared.notes, cost, out)
    if state.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _claimed(partial: Path, prepared: Prepared, main: bool) -> Iterator[None]:
    """The partial folder, made or found to belong to the same request, with this run as its only writer."""
    if not main:
        yield
        return
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial / "lock")
    try:
        lock.acquire(blocking=False)
    except TimeoutError as error:  # filelock.Timeout is one
        raise RequestError(f"Another run is writing to '{partial}'.", "Wait for it, or give another --out.") from error
    try:
        path = partial / _REQUEST_FILE
        key = prepared.key()
        if path.is_file() and path.read_text(encoding="utf-8").strip() != key:
            raise RequestError(
                f"'{partial}' holds the unfinished run of another request.",
                "Repeat that request to finish it, remove the folder, or give another --out.",
            )
        if path.is_file():
            (partial / "went-on").touch()
        write_text_atomically(path, key + "\n")
        yield
    finally:
        lock.release()


def _standing(prepared: Prepared) -> Checkpoint | None:
    """The checkpoint at `out` if it is what this request would make; raises where something else stands there."""
    out = Path(prepared.request.out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    found = read_checkpoint(out) if out.is_dir() else None
    parent = prepared.lineage.parent.sha256 if prepared.lineage.parent else None
    if (
        found is not None
        and (found.trainer, found.recipe["sha256"], found.data.sha256)
        == (prepared.request.name, prepared.recipe.sha256, prepared.data.sha256)
        and (found.base.sha256, found.parent.sha256 if found.parent else None) == (prepared.lineage.base.sha256, parent)
    ):
        return found
    raise RequestError(f"'{out}' exists and is not the checkpoint of this request.", "Give another --out, or remove it.")


def _check_updates(request: Request, counted: Sizes) -> list[str]:
    if counted.updates >= FEWEST_UPDATES:
        return []
    if not request.allow_few_updates:
        raise RequestError(
            f"This run would make {counted.updates} optimizer updates from {counted.tokens:,} tokens; fewer than "
            f"{FEWEST_UPDATES} change a model so little that a null result means nothing.",
            "Give more data, --set epochs or a smaller --set batch_rows; or say --allow-few-updates.",
        )
    return [f"Trained with {counted.updates} updates, fewer than {FEWEST_UPDATES}, as was asked for."]


def _waived_notes(request: Request) -> list[str]:
    return [f"These checks of the texts were waived: {', '.join(request.waive)}."] if request.waive else []


def _control_notes(chosen: rows_of.Chosen) -> list[str]:
    names = rows_of.control_specs(row.spec for row in (*chosen.train, *chosen.held_out))
    return [f"Trained on the control spec {', '.join(names)}, as was asked for."] if names else []
