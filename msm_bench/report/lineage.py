"""What an arm is: the stages that made its checkpoints, first to last, read from their manifests."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.checkpoints.manifest import Checkpoint, read_checkpoint
from msm_bench.errors import CorruptWeightsError

SOURCED = ("paper B.4", "adapter config")
"""Sources of a recipe's settings that are not our own choice."""

DOCUMENT_TRAINERS = frozenset({"msm"})
"""Trainers that read documents; every other one is fine-tuning, whose tokens the paper counts."""


class Setting(BaseModel):
    """A setting of a recipe that no source fixes."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    source: str
    reason: str


class StageFacts(BaseModel):
    """One stage of training. `tokens` counts every epoch; `loss_tokens` those of them that bear loss."""

    model_config = ConfigDict(frozen=True)

    trainer: str
    specs: tuple[str, ...]
    corpora: tuple[str, ...]
    rows: int
    tokens: int
    loss_tokens: int
    updates: int
    seed: int
    recipe: str
    settings: dict[str, str]
    """Every setting of the recipe but the seed, as text."""
    chosen: tuple[Setting, ...]
    notes: tuple[str, ...]
    seconds: float | None
    id: str

    @property
    def documents(self) -> bool:
        """Whether it read documents (midtraining)."""
        return self.trainer in DOCUMENT_TRAINERS

    @property
    def what(self) -> str:
        """Trainer and specs in one word: `msm(philosophy)`."""
        return f"{self.trainer}({'+'.join(self.specs)})" if self.specs else self.trainer


class Lineage(BaseModel):
    """The stages behind one model, first to last; empty for an untrained one. `problem` says why they are not all known."""

    model_config = ConfigDict(frozen=True)

    stages: tuple[StageFacts, ...] = ()
    base: str | None = None
    problem: str | None = None

    @property
    def known(self) -> bool:
        """Whether every stage is known, so that tokens may be summed."""
        return bool(self.stages) and self.problem is None

    @property
    def series(self) -> str:
        """The stages without their amounts: arms of one series lie on one curve."""
        return " + ".join(stage.what for stage in self.stages)

    def tokens(self, documents: bool = True) -> int:
        """Tokens trained on, over all epochs; without `documents` those of fine-tuning alone."""
        return sum(stage.tokens for stage in self.stages if documents or not stage.documents)


def trace_model(model: str) -> Lineage:
    """The lineage of a model as Inspect names it. A model that is no checkpoint of ours has none, and no problem either."""
    path = Path(model.split("/", 1)[-1])
    if not model.startswith("msm/") or (not path.is_absolute() and len(path.parts) < 2):
        return Lineage()
    if not path.is_dir():
        return Lineage(problem="the checkpoint's folder is not here, so recipe, data and tokens are not known")
    stages: list[StageFacts] = []
    wanted: str | None = None
    while True:
        try:
            record = read_checkpoint(path)
        except CorruptWeightsError as error:
            return Lineage(stages=tuple(stages), problem=str(error))
        if record is None:
            # Full weights or an adapter that was made elsewhere: nothing says how.
            problem = (
                "one stage was trained elsewhere and has no manifest"
                if stages or (path / "adapter_config.json").is_file()
                else None
            )
            return Lineage(stages=tuple(stages), problem=problem)
        if wanted is not None and record.id != wanted:
            return Lineage(stages=tuple(stages), problem=f"the parent's folder {path.name} now holds another checkpoint")
        stages.insert(0, _stage(record))
        if record.parent is None:
            return Lineage(stages=tuple(stages), base=record.base.name)
        path, wanted = Path(record.parent.path), record.parent.id


def _stage(record: Checkpoint) -> StageFacts:
    recipe, data = record.recipe, record.data
    settings, sources = recipe.get("settings", {}), recipe.get("sources", {})
    epochs = int(settings.get("epochs", 1))
    return StageFacts(
        trainer=record.trainer,
        specs=tuple(sorted({spec for corpus in data.corpora for spec in corpus.specs})),
        corpora=tuple(f"{corpus.name} ({(corpus.id or corpus.sha256)[:12]})" for corpus in data.corpora),
        rows=data.rows,
        tokens=data.tokens * epochs,
        loss_tokens=data.loss_tokens * epochs,
        updates=record.updates,
        seed=record.seed,
        recipe=f"{recipe.get('name', '?')} v{recipe.get('version', '?')}",
        settings={name: _shown(value) for name, value in sorted(settings.items()) if name != "seed"},
        chosen=tuple(_chosen(settings, sources)),
        notes=record.notes,
        seconds=record.cost.get("seconds"),
        id=record.id[:12],
    )


def _chosen(settings: dict[str, Any], sources: dict[str, Any]) -> Iterable[Setting]:
    for name, value in sorted(settings.items()):
        source = sources.get(name) or {"source": "not recorded"}
        if source["source"] in SOURCED or name == "seed":
            continue
        yield Setting(name=name, value=_shown(value), source=source["source"], reason=source.get("reason", ""))


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
