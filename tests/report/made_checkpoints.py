"""Records of checkpoints (`checkpoint.json`) without weights: what a report reads of a trained arm."""

from pathlib import Path
from typing import Any

from msm_bench.artefacts import sha256_of_text
from msm_bench.checkpoints.manifest import CHECKPOINT_FILE, Base, Checkpoint, Corpus, Data, Parent, checkpoint_id
from msm_bench.trainers.contract import find_trainer
from msm_bench.trainers.recipe import resolve_recipe


def checkpoint(
    folder: Path,
    trainer: str,
    *,
    spec: str,
    tokens: int,
    parent: Path | None = None,
    seed: int = 0,
    notes: tuple[str, ...] = (),
    **changes: str,
) -> Path:
    """Writes the record of one stage: documents read twice, chats four times; `changes` are settings of the recipe."""
    recipe = resolve_recipe(
        "laptop",
        trainer,
        find_trainer(trainer).recipe,
        {"seed": str(seed), "epochs": "2" if trainer == "msm" else "4", **changes},
    )
    before = Checkpoint.model_validate_json((parent / CHECKPOINT_FILE).read_bytes()) if parent else None
    data = Data(
        sha256=sha256_of_text(f"data {spec} {tokens}"),
        corpora=(Corpus(name=f"{trainer}-{spec}", sha256=sha256_of_text(spec), rows=100, used=100, specs=(spec,)),),
        rows=95,
        held_out=5,
        examples=95,
        split=0,
        tokens=tokens,
        loss_tokens=tokens // 2,
    )
    fields: dict[str, Any] = {
        "trainer": trainer,
        "base": Base(name="smollm2-135m", sha256=sha256_of_text("base"), source="folder"),
        "parent": Parent(id=before.id, sha256=before.weights_sha256, path=str(parent)) if before else None,
        "data": data,
        "updates": 120,
        "weights_sha256": sha256_of_text(f"weights {folder}"),
    }
    record = Checkpoint(
        id=checkpoint_id(
            trainer, fields["base"], fields["parent"], recipe.sha256, data, fields["updates"], fields["weights_sha256"]
        ),
        recipe=recipe.model_dump(mode="json"),
        seed=seed,
        versions={},
        metrics={},
        cost={"seconds": 600.0},
        notes=notes,
        **fields,
    )
    folder.mkdir(parents=True)
    (folder / CHECKPOINT_FILE).write_text(record.model_dump_json(indent=2), encoding="utf-8")
    return folder
