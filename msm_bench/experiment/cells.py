"""The cells of an experiment: corpora, checkpoints and evaluations, each keyed by the hash of everything that makes its result.

Two arms that share a stage share its cell. Folders are named by the key, so a changed recipe, spec or seed makes a new cell and
leaves the old one where it is.

    <root>/corpora/<kind>-<source>-<key>/            shared by all experiments
    <root>/checkpoints/<trainer>-<source>-s<seed>-<key>/
    <logs>/<experiment>/<arm>-s<seed>-<key>/         one Inspect log a task
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from msm_bench.artefacts import read_manifest, sha256_of_file, sha256_of_value
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.experiment.arms import Arm, Stage
from msm_bench.experiment.settings import Experiment
from msm_bench.specs import list_specs, load_spec
from msm_bench.trainers.contract import find_trainer
from msm_bench.trainers.recipe import resolve_recipe

INSTRUCTION_MIX = "mix"


def slug(text: str) -> str:
    """A text as a part of a folder's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")[:60] or "base"


@dataclass(frozen=True)
class CorpusCell:
    """A corpus to make from a spec, the instruction mix, or a folder that is there already."""

    kind: str
    """documents, chats, mix, or folder."""
    source: str
    key: str
    rows: int
    """Rows asked for; those that are there for a folder."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.source}"

    def folder(self, root: Path) -> Path:
        """Where its rows are, or will be."""
        if self.kind == "folder":
            return Path(self.source).expanduser()
        return root / "corpora" / f"{slug(self.kind)}-{slug(self.source)}-{self.key[:12]}"


@dataclass(frozen=True)
class TrainCell:
    """A checkpoint to train."""

    stage: Stage
    corpora: tuple[tuple[CorpusCell, float | None], ...]
    """Each with its share of all rows, None for one that is taken whole."""
    parent: "TrainCell | None"
    seed: int
    key: str

    @property
    def name(self) -> str:
        return f"{self.parent.name} {self.stage.text}" if self.parent else f"{self.stage.text} s{self.seed}"

    def folder(self, root: Path) -> Path:
        """Where the checkpoint is, or will be."""
        return root / "checkpoints" / f"{slug(self.stage.text)}-s{self.seed}-{self.key[:12]}"


@dataclass(frozen=True)
class EvalCell:
    """All tasks on one arm and seed."""

    arm: str
    stages: Arm
    checkpoint: TrainCell | None
    seed: int | None
    """None where nothing was trained."""
    key: str

    @property
    def name(self) -> str:
        return self.arm if self.seed is None else f"{self.arm} s{self.seed}"

    def folder(self, logs: Path) -> Path:
        """Where its logs are, or will be; `logs` is the experiment's folder of logs."""
        seed = "" if self.seed is None else f"-s{self.seed}"
        return logs / f"{slug(self.arm)}{seed}-{self.key[:8]}"


@dataclass(frozen=True)
class Plan:
    """All cells of an experiment in an order in which they can be made."""

    experiment: Experiment
    corpora: tuple[CorpusCell, ...]
    training: tuple[TrainCell, ...]
    evaluations: tuple[EvalCell, ...]

    def cells(self) -> Iterator[CorpusCell | TrainCell | EvalCell]:
        """Corpora, then each checkpoint, and each evaluation as soon as its checkpoint can be there."""
        yield from self.corpora
        evaluated: set[str] = set()
        for evaluation in self.evaluations:
            if evaluation.checkpoint is None:
                evaluated.add(evaluation.key)
                yield evaluation
        for cell in self.training:
            yield cell
            for evaluation in self.evaluations:
                if evaluation.key not in evaluated and evaluation.checkpoint == cell:
                    evaluated.add(evaluation.key)
                    yield evaluation


@dataclass
class _Planner:
    experiment: Experiment
    corpora: dict[str, CorpusCell] = field(default_factory=dict)
    training: dict[str, TrainCell] = field(default_factory=dict)
    sources: dict[tuple[str, str], CorpusCell] = field(default_factory=dict)
    """Source and kind of rows to their cell."""
    recipes: dict[tuple[str, int], str] = field(default_factory=dict)
    """Trainer and seed to the hash of the settings."""

    def corpus(self, source: str, uses: str) -> CorpusCell:
        if (source, uses) not in self.sources:
            cell = self._corpus(source, uses)
            # Two names of one folder are one cell.
            self.sources[source, uses] = self.corpora.setdefault(cell.key, cell)
        return self.sources[source, uses]

    def _corpus(self, source: str, uses: str) -> CorpusCell:
        made = self.experiment.corpora
        if source == INSTRUCTION_MIX:
            if uses != "chats":
                raise RequestError("The instruction mix holds chats, which documents cannot be mixed with.", "Mix it into aft.")
            return CorpusCell("mix", "instructions", sha256_of_value(["mix", _mix_version()]), _mix_rows())
        if source in list_specs():
            rows = made.documents if uses == "documents" else made.chats
            content = [uses, load_spec(source).sha256, rows, made.offline, made.seed, made.model_name, made.provider_name]
            generator = None if made.offline else self.experiment.generator
            return CorpusCell(uses, source, sha256_of_value([*content, generator]), rows)
        return _folder(source, uses)

    def train(self, stage: Stage, parent: TrainCell | None, seed: int) -> TrainCell:
        trainer = find_trainer(stage.kind)
        if (stage.kind, seed) not in self.recipes:  # reading a recipe takes longer than all the rest of a cell
            overrides = self.experiment.overrides_of(stage.kind, seed)
            self.recipes[stage.kind, seed] = resolve_recipe(
                self.experiment.recipe, stage.kind, trainer.recipe, overrides
            ).sha256
        whole = (self.corpus(stage.source, trainer.uses), None)
        mixed = [(self.corpus(source, trainer.uses), share) for source, share in stage.shares]
        corpora: tuple[tuple[CorpusCell, float | None], ...] = (whole, *mixed)
        content = [
            stage.kind,
            self.recipes[stage.kind, seed],
            self.experiment.base,
            [[cell.key, share] for cell, share in corpora],
            parent.key if parent else None,
        ]
        cell = TrainCell(stage, corpora, parent, seed, sha256_of_value(content))
        return self.training.setdefault(cell.key, cell)

    def evaluation(self, name: str, arm: Arm, checkpoint: TrainCell | None, seed: int | None) -> EvalCell:
        experiment = self.experiment
        spec = arm.untrained("in_context")
        if spec is not None and spec not in list_specs() and not Path(spec).is_dir():
            raise UnknownNameError("spec", spec, list_specs())
        content = [
            name,
            arm.text,
            experiment.base,
            checkpoint.key if checkpoint else None,
            [each.model_dump(mode="json", exclude={"samples"}) for each in experiment.evals],
            experiment.grader,
            *([experiment.serve.identity()] if experiment.serve else []),
        ]
        return EvalCell(name, arm, checkpoint, seed, sha256_of_value(content))


def plan(experiment: Experiment) -> Plan:
    """The cells of an experiment.

    Raises:
        RequestError: a trainer, spec, recipe or corpus that an arm names is not there.
    """
    planner = _Planner(experiment)
    evaluations = []
    for name, arm in experiment.all_arms().items():
        for seed in experiment.seeds if arm.trained else (None,):
            checkpoint: TrainCell | None = None
            for stage in arm.trained:
                assert seed is not None  # an arm with trained stages runs over the seeds
                checkpoint = planner.train(stage, checkpoint, seed)
            evaluations.append(planner.evaluation(name, arm, checkpoint, seed))
    return Plan(experiment, tuple(planner.corpora.values()), tuple(planner.training.values()), tuple(evaluations))


def _folder(source: str, uses: str) -> CorpusCell:
    folder = Path(source).expanduser()
    file = folder / (DOCUMENTS_FILE if uses == "documents" else CHATS_FILE)
    if not folder.is_dir() or not file.is_file():
        if "/" in source or folder.exists():
            raise RequestError(f"There is no {file.name} in '{source}'.", "Name a spec or the folder of a corpus.")
        raise UnknownNameError("spec", source, (*list_specs(), INSTRUCTION_MIX))
    has_manifest = (folder / "manifest.json").is_file()
    key = read_manifest(folder).id if has_manifest else sha256_of_file(file)
    with file.open("rb") as lines:
        rows = sum(1 for _ in lines)
    return CorpusCell("folder", source, sha256_of_value(["folder", key, uses]), rows)


def _mix_version() -> str:
    from msm_bench.corpus.mix import local_mix

    return sha256_of_value([row.sha256 for row in local_mix()])


def _mix_rows() -> int:
    from msm_bench.corpus.mix import local_mix

    return len(local_mix())
