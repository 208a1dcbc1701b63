"""Next-token training with transformers' trainer: a fixed order, exact resuming, equal numbers on any count of processes."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainingArguments
from transformers import Trainer as TransformersTrainer

from msm_bench.artefacts import write_text_atomically
from msm_bench.errors import RequestError, WorkError
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.memory import Checkpointing
from msm_bench.trainers.packing import Collate, Row, Rows, order, pack
from msm_bench.trainers.recipe import Recipe
from msm_bench.trainers.speed import fast_paths, row_length
from msm_bench.trainers.stage import Stage
from msm_bench.trainers.states import Losses, States, last_state, on_cpu, processes, read_losses, remove_incomplete

LOSSES_FILE = "losses.jsonl"
_START_FILE = "held-out-start.json"
A = TypeVar("A", bound=TrainingArguments)

_NO_EFFECT = 1e-6
"""Nats a token: an adapter whose held-out loss differs by less changed nothing."""


class _Fit(TransformersTrainer):
    """Reads its rows in the order that they have, and measures the held-out loss before the first update."""

    stage: Stage
    collate: Collate

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        # The order is made by the recipe's seed, once; a sampler of its own would shuffle again.
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def first_loss(self) -> torch.Tensor:
        """The loss of the first micro-batch, its rows as long as a row can be; for measuring, before the first update."""
        recipe = self.stage.recipe.settings
        collate = Collate(self.collate.pad, recipe.max_tokens)
        rows: Any = self.train_dataset
        batch = self._prepare_inputs(collate([rows[number] for number in range(recipe.micro_batch_rows)]))
        loss: torch.Tensor = self.model_wrapped(**batch, num_items_in_batch=1).loss
        return loss

    def held_out_loss(self, adapter: bool = True) -> float:
        """Mean loss of the held-out tokens in nats; every process does its part of the rows."""
        recipe = self.stage.recipe.settings
        examples = self.stage.held_out
        rows = pack([len(example.ids) for example in examples], recipe.max_tokens, recipe.packing)
        count = self.accelerator.num_processes
        # As many rows on every process: under FSDP a forward pass is made by all of them together.
        rows += [()] * (-len(rows) % count)
        total = torch.zeros(2, dtype=torch.float64)
        peft = self.accelerator.unwrap_model(self.model)
        self.model_wrapped.eval()
        with torch.no_grad(), nullcontext() if adapter else peft.disable_adapter():
            for row in rows[self.accelerator.process_index :: count]:
                batch = self._prepare_inputs(self.collate([[examples[index] for index in row]]))
                tokens = int((batch["labels"] != IGNORED).sum())
                # Divided by 1: the sum over the tokens.
                loss = self.model_wrapped(**batch, num_items_in_batch=1).loss
                total += torch.tensor([float(loss), tokens], dtype=torch.float64)
        self.model_wrapped.train()
        # float32 on the way: not every device has float64
        sums = self.accelerator.reduce(total.to(torch.float32).to(self.args.device), "sum")
        return float(sums[0] / sums[1])


class _HeldOutStart(transformers.TrainerCallback):
    """Measures the held-out loss once before the first update; a run that goes on finds it in its folder."""

    def __init__(self, fit: _Fit, path: Path) -> None:
        self._fit = fit
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        if not self._path.is_file():
            if state.global_step:
                raise WorkError(f"'{self._path}' is missing.", f"Remove the folder '{self._path.parent}' and train again.")
            loss = self._fit.held_out_loss()
            if state.is_world_process_zero:
                write_text_atomically(self._path, json.dumps(loss))
        processes().wait_for_everyone()


def next_token(stage: Stage) -> None:
    """See `Stage.next_token`."""
    recipe = stage.recipe.settings
    folder = stage.folder / "next-token"
    rows = order(stage.train, recipe.max_tokens, recipe.packing, recipe.epochs, recipe.batch_rows, recipe.seed)
    collate = Collate(_pad(stage.tokenizer), row_length(recipe))
    # Which layers compute twice is decided by `Checkpointing`, on the device.
    plain = {f"{_checkpointing_word()}_checkpointing": False}
    with without_cache(stage.model), fast_paths(stage.model, recipe):
        fit = _Fit(
            model=stage.model,
            args=on_one_card(TrainingArguments(**common(recipe, folder, len(rows) // recipe.batch_rows) | plain)),
            train_dataset=Rows(stage.train, rows),
            data_collator=collate,
        )
        fit.stage, fit.collate = stage, collate
        fit.remove_callback(PrinterCallback)
        fit.add_callback(States(folder))
        fit.add_callback(Checkpointing(stage.model.get_base_model(), recipe, fit.first_loss))
        fit.add_callback(_HeldOutStart(fit, folder / _START_FILE))
        fit.add_callback(Losses(folder / LOSSES_FILE, _tokens(stage.train, rows, recipe.batch_rows)))
        run(fit, folder)
        stage.trainer, stage.updates = fit, stage.updates + fit.state.global_step
        _measure(stage, fit, folder)


def run(trainer: Any, folder: Path) -> None:
    """Train with a transformers trainer from the last complete state in its folder."""
    if processes().is_main_process:
        remove_incomplete(folder)
    processes().wait_for_everyone()
    _keep_float32(trainer.accelerator.state)
    state = last_state(folder)
    trainer.train(resume_from_checkpoint=str(state) if state else None)


def _keep_float32(state: Any) -> None:
    # Under FSDP2 Accelerate's bf16 also rounds what a layer returns, the loss too, and the gradients' sum over the processes.
    plugin: Any = getattr(state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(policy, reduce_dtype=torch.float32, output_dtype=None)


def on_one_card(arguments: A) -> A:
    """The same arguments for one card a process.

    A process alone on a machine with several would train in torch's `DataParallel`, which the adapters' layers do not follow
    and the recipe's batch did not ask for. More cards are for `--accelerate`, which starts a process for each.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def common(recipe: Recipe, folder: Path, updates: int) -> dict[str, Any]:
    """transformers' settings for a recipe, as keywords: for its arguments and for TRL's.

    Raises:
        RequestError: the batch cannot be divided among the processes.
    """
    count = processes().num_processes
    if recipe.batch_rows % (recipe.micro_batch_rows * count):
        raise RequestError(
            f"batch_rows {recipe.batch_rows} cannot be divided among {count} processes "
            f"with micro_batch_rows {recipe.micro_batch_rows}.",
            f"Use --set batch_rows={recipe.micro_batch_rows * count}, or a multiple of it, or fewer processes.",
        )
    return {
        "output_dir": str(folder),
        "max_steps": updates,
        "per_device_train_batch_size": recipe.micro_batch_rows,
        "gradient_accumulation_steps": recipe.batch_rows // (recipe.micro_batch_rows * count),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": round(updates * recipe.warmup),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "adam_beta1": recipe.adam_beta1,
        "adam_beta2": recipe.adam_beta2,
        "adam_epsilon": recipe.adam_epsilon,
        "optim": "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",
        "bf16": dtype(recipe) is torch.bfloat16,
        **_checkpointing(recipe),
        "seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "average_tokens_across_devices": True,
        "ddp_find_unused_parameters": False,
        "use_cpu": on_cpu(),
    }


def _checkpointing(recipe: Recipe) -> dict[str, Any]:
    asked, word = recipe.gradient_checkpointing, _checkpointing_word()
    # All layers where only some are asked for: what `Checkpointing` measures is a pass of next-token training.
    on = not on_cpu() if asked == "auto" else bool(asked)
    return {f"{word}_checkpointing": on, f"{word}_checkpointing_kwargs": {"use_reentrant": False}}


def _checkpointing_word() -> str:
    # transformers 5.2x renames its two settings, and warns at the old names.
    return "activation" if "activation_checkpointing" in TrainingArguments.__dataclass_fields__ else "gradient"


def dtype(recipe: Recipe) -> torch.dtype:
    """The dtype of the frozen weights."""
    if recipe.dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    found: torch.dtype = getattr(torch, recipe.dtype)
    return found


@contextmanager
def without_cache(model: Any) -> Iterator[None]:
    """No key-value cache in forward passes. With one, transformers takes a packed row for a single sequence."""
    config = model.config.get_text_config()
    before, config.use_cache = config.use_cache, False
    try:
        yield
    finally:
        config.use_cache = before


def _pad(tokenizer: Any) -> int:
    # Padding bears no loss and nothing attends to it, so that any token will do.
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _tokens(examples: Sequence[Example], rows: Sequence[Row], batch_rows: int) -> list[dict[str, int]]:
    counts = []
    for start in range(0, len(rows), batch_rows):
        members = [examples[index] for row in rows[start : start + batch_rows] for index in row]
        loss = sum(int((example.labels != IGNORED).sum()) for example in members)
        counts.append({"tokens": sum(len(example.ids) for example in members), "loss_tokens": loss})
    return counts


def _measure(stage: Stage, fit: _Fit, folder: Path) -> None:
    """Held-out losses and the ends of the loss curve. Raises `WorkError` for an adapter that changes nothing."""
    start = float(json.loads((folder / _START_FILE).read_text(encoding="utf-8")))
    end, base = fit.held_out_loss(), fit.held_out_loss(adapter=False)
    losses = [line["loss"] for line in read_losses(folder / LOSSES_FILE)]
    tenth = max(len(losses) // 10, 1)
    stage.metrics |= {"held_out_base": base, "held_out_start": start, "held_out": end}
    stage.metrics |= {"loss_first": sum(losses[:tenth]) / tenth, "loss_last": sum(losses[-tenth:]) / tenth}
    if abs(end - start) < _NO_EFFECT:
        raise WorkError(
            f"The training changed nothing: the held-out loss is {end:.6f} before and after.",
            "Raise --set learning_rate, or look for a frozen adapter.",
        )
