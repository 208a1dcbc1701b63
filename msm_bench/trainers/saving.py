"""A trained stage to a checkpoint folder: adapter, tokenizer, record, losses, card. Whole or absent."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from msm_bench.artefacts import installed_versions, sha256_of_file, write_text_atomically, writing_folder
from msm_bench.checkpoints.held_out import HELD_OUT_FILE
from msm_bench.checkpoints.manifest import ADAPTER_WEIGHTS, CHECKPOINT_FILE, Checkpoint, Data, checkpoint_id
from msm_bench.trainers.card import card
from msm_bench.trainers.fitting import LOSSES_FILE
from msm_bench.trainers.held_out import measure
from msm_bench.trainers.lineage import Lineage
from msm_bench.trainers.stage import Stage
from msm_bench.trainers.states import read_losses

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "safetensors")


def save(
    stage: Stage, name: str, lineage: Lineage, data: Data, notes: Sequence[str], cost: dict[str, float], out: Path
) -> Checkpoint | None:
    """Write the checkpoint of a finished stage to `out`. Every process calls it; the first alone writes.

    Args:
        stage: After its training.
        name: The trainer's name.
        lineage: Base and parent.
        data: What was trained on.
        notes: What a reader of the results must know.
        cost: What the run took, the unit in the name.
        out: The folder, which does not exist yet.

    Returns:
        The record; None on the processes that do not write.
    """
    accelerator = stage.trainer.accelerator
    model = accelerator.unwrap_model(stage.trainer.model)
    weights = gather_adapter(model)
    held_out = measure(stage)
    record = None
    if accelerator.is_main_process:
        with writing_folder(out) as folder:
            _save_adapter(model, lineage, weights, folder)
            stage.tokenizer.save_pretrained(folder)
            for part in sorted(stage.folder.glob("*/*.jsonl")):
                first = part.parent.name == "next-token"
                shutil.copyfile(part, folder / (part.name if first else f"{part.parent.name}-{part.name}"))
            write_text_atomically(folder / HELD_OUT_FILE, "".join(f"{row.model_dump_json()}\n" for row in held_out))
            record = _record(stage, name, lineage, data, [*notes, *_readings(stage)], cost, folder)
            write_text_atomically(folder / CHECKPOINT_FILE, record.model_dump_json(indent=2) + "\n")
            write_text_atomically(folder / "card.md", card(record))
    accelerator.wait_for_everyone()
    return record


def gather_adapter(model: Any) -> dict[str, Tensor]:
    """The trained tensors, whole, on the CPU. Under FSDP each process holds a part, so that every process must call it.

    The frozen weights stay where they are: gathering them as well would need memory for the whole model.
    """
    return {
        name: (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def _save_adapter(model: Any, lineage: Lineage, weights: dict[str, Tensor], folder: Path) -> None:
    config = model.peft_config["default"]
    identity = lineage.model.identity
    repository = identity.get("base_repository" if lineage.parent else "repository")
    config.base_model_name_or_path = repository or lineage.model.path
    config.revision = lineage.base.source.removeprefix("hub@") if repository else None
    model.save_pretrained(folder, state_dict=weights)
    # Sets are written in an order that differs between runs.
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content.get("target_modules"), list):
        content["target_modules"].sort()
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty form; card.md says what is known


def _record(
    stage: Stage, name: str, lineage: Lineage, data: Data, notes: list[str], cost: dict[str, float], folder: Path
) -> Checkpoint:
    weights = sha256_of_file(folder / ADAPTER_WEIGHTS)
    metrics = dict(stage.metrics)
    if lineage.parent is not None:
        metrics["parent_cosine"] = cosine(Path(lineage.parent.path) / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    recipe = stage.recipe
    return Checkpoint(
        id=checkpoint_id(name, lineage.base, lineage.parent, recipe.sha256, data, stage.updates, weights),
        trainer=name,
        base=lineage.base,
        parent=lineage.parent,
        recipe=recipe.model_dump(mode="json"),
        data=data,
        updates=stage.updates,
        seed=recipe.settings.seed,
        weights_sha256=weights,
        versions=installed_versions(_PACKAGES),
        metrics=metrics,
        cost=cost,
        notes=tuple(notes),
    )


def cosine(parent: Path, child: Path) -> float:
    """Mean over an adapter's tensors of the cosine between two files' versions of it.

    About .99 where a run continued its parent (so the released models), about 0 for two runs from scratch.
    """
    before, after = load_file(parent), load_file(child)
    shared = sorted(before.keys() & after.keys())
    flat = [(before[key].flatten().double(), after[key].flatten().double()) for key in shared]
    return fmean(float(a @ b / (a.norm() * b.norm()).clamp_min(1e-30)) for a, b in flat)


def _readings(stage: Stage) -> list[str]:
    """What the loss curve says: whether it still fell at the end."""
    losses = [line["loss"] for line in read_losses(stage.folder / "next-token" / LOSSES_FILE)]
    fifth = len(losses) // 5
    if fifth < 4:
        return []
    earlier, last = losses[-2 * fifth : -fifth], losses[-fifth:]
    error = ((stdev(earlier) ** 2 + stdev(last) ** 2) / fifth) ** 0.5
    fell = fmean(earlier) - fmean(last)
    return [f"The loss still fell at the end: by {fell:.3f} nats in the last fifth."] if fell > 2 * error else []
