"""Which weights a run starts from: the base, and the adapter that it continues. Hashes are compared, names are not trusted."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msm_bench.checkpoints import ResolvedModel, resolve
from msm_bench.checkpoints.manifest import Base, Parent, verify_checkpoint
from msm_bench.errors import CorruptWeightsError, RequestError
from msm_bench.trainers.recipe import Recipe


@dataclass(frozen=True)
class Lineage:
    """Where a run starts.

    Attributes:
        model: Base weights and, for a run with a parent, its adapter.
        base: For the record.
        parent: For the record; None for a fresh adapter.
    """

    model: ResolvedModel
    base: Base
    parent: Parent | None


def trace(model: str | None, parent: str | Path | None) -> Lineage:
    """Find base and parent.

    Args:
        model: The base's name; None to take the parent's.
        parent: Folder of the adapter to continue, or None.

    Raises:
        RequestError: neither is given, the model is an adapter, or the parent's base is another model.
        CorruptWeightsError: the parent is not what its checkpoint.json says.
        ModelNotFoundError, NotAModelError, DownloadError: as `checkpoints.resolve`.
    """
    if parent is None:
        if model is None:
            raise RequestError("There is no model to train.", "Name one with --model, or a checkpoint with --from.")
        resolved = resolve(model)
        if resolved.adapter is not None:
            raise RequestError(
                f"'{model}' is an adapter, and --model names full weights.", f"Use --from {model} to continue it."
            )
        return Lineage(resolved, _base(model, resolved.identity), None)
    resolved = resolve(str(parent))
    if resolved.adapter is None:
        raise RequestError(f"'{parent}' holds full weights and no adapter to continue.", f"Use --model {parent}.")
    folder = Path(resolved.adapter)
    record = verify_checkpoint(folder)
    identity = {key.removeprefix("base_"): value for key, value in resolved.identity.items() if key.startswith("base_")}
    if record is not None and record.base.sha256 != identity["sha256"]:
        raise CorruptWeightsError(
            f"The base of '{parent}' has changed: its weights are not those that the checkpoint was trained on.",
            "Restore those weights, or train the parent anew.",
        )
    if model is not None and resolve(model).identity["sha256"] != identity["sha256"]:
        raise RequestError(f"'{parent}' is an adapter of another model than '{model}'.", "Leave out --model, or name its base.")
    name = model or (record.base.name if record else resolved.path)
    found = Parent(id=record.id if record else None, sha256=resolved.identity["sha256"], path=str(folder))
    return Lineage(resolved, _base(name, identity), found)


def check_parent(lineage: Lineage, recipe: Recipe) -> None:
    """Raises `RequestError` where a parent's adapter has not the shape that the recipe asks for: it is continued as it is."""
    if lineage.parent is None:
        return
    config = json.loads((Path(lineage.parent.path) / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise RequestError(f"'{lineage.parent.path}' is no LoRA adapter.", "Name a LoRA adapter with --from.")
    asked = {"r": recipe.rank, "lora_alpha": recipe.alpha}
    differ: dict[str, tuple[Any, Any]] = {
        key: (config.get(key), value) for key, value in asked.items() if config.get(key) != value
    }
    targets = config.get("target_modules")
    # A pattern (text) instead of a list cannot be compared by name.
    if isinstance(targets, list) and set(targets) != set(recipe.target_modules):
        differ["target_modules"] = (sorted(targets), tuple(sorted(recipe.target_modules)))
    if differ:
        shown = "; ".join(f"{key} is {has} in the parent and {wants} in the recipe" for key, (has, wants) in differ.items())
        raise RequestError(
            f"The parent's adapter has another shape: {shown}.", "Give the parent's values with --set rank=... alpha=... ."
        )


def check_unchanged(lineage: Lineage) -> None:
    """Raises `CorruptWeightsError` where the parent's folder holds other weights than at the start of the run."""
    if lineage.parent is None:
        return
    from msm_bench.artefacts import sha256_of_file

    if sha256_of_file(Path(lineage.parent.path) / "adapter_model.safetensors") != lineage.parent.sha256:
        raise CorruptWeightsError(
            f"The parent '{lineage.parent.path}' was changed while it was being continued.",
            "Find what else writes to that folder, and train again.",
        )


def _base(name: str, identity: dict[str, str]) -> Base:
    return Base(name=name, sha256=identity["sha256"], source=identity["source"])
