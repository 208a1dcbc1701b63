"""Which recipe stands behind a model, stage by stage, as hashes: recipes of one name need not be the same recipe.

A label is `aft=paper v1 0f3a9c12; msm=paper v1 77be0d41`: for every stage its trainer and the recipe's name, version and hash.
Where no manifest tells (the log was moved, the adapter was made elsewhere) it is the bare name that the log gives.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msm_bench.artefacts import sha256_of_value
from msm_bench.checkpoints.manifest import read_checkpoint
from msm_bench.errors import MsmBenchError

_DIGITS = 8
_NOT_THE_RECIPE = frozenset(
    {"seed", "token_budget", "reasoning", "micro_batch_rows", "attention", "gradient_checkpointing", "save_every"}
)
"""Settings that a comparison need not hold fixed: the repetition, the dose, whether reasoning is trained, the machine."""


def stage_recipes(model: str) -> dict[str, str]:
    """Trainer to recipe for every stage behind an `msm/FOLDER`; those that are known, empty for anything else."""
    path, found = Path(model.split("/", 1)[-1]), dict[str, str]()
    if not model.startswith("msm/"):
        return found
    for _ in range(20):  # a parent's path that leads back to a child must not hang the reading
        try:
            record = read_checkpoint(path)
        except (MsmBenchError, OSError):
            return found
        if record is None:
            return found
        found[record.trainer] = recipe_id(record.recipe)
        if record.parent is None:
            return found
        path = Path(record.parent.path)
    return found


def recipe_id(recipe: Mapping[str, Any]) -> str:
    """`name version hash` of a manifest's recipe, the hash being that of the settings that a comparison holds fixed."""
    settings = {name: value for name, value in recipe.get("settings", {}).items() if name not in _NOT_THE_RECIPE}
    version = f" v{recipe['version']}" if "version" in recipe else ""
    return f"{recipe.get('name', 'unnamed')}{version} {sha256_of_value(settings)[:_DIGITS]}"


def recipe_label(stages: Mapping[str, str], name: str | None) -> str | None:
    """The label of a log: its stages where they are known, else the bare name."""
    return "; ".join(f"{trainer}={recipe}" for trainer, recipe in sorted(stages.items())) or name


def conflicts(labels: Iterable[str]) -> list[str]:
    """What recipes do not go together: stages of one trainer with different hashes, and where there is only a name, names.

    A trainer that only one side used is no conflict: that is what the arms were made to differ in.
    """
    by_trainer: dict[str, set[str]] = {}
    names: set[str] = set()
    bare = False
    for label in labels:
        stages = _read(label)
        bare = bare or not stages
        names |= {_name(recipe) for recipe in stages.values()} or {label}
        for trainer, recipe in stages.items():
            by_trainer.setdefault(trainer, set()).add(recipe)
    found = [f"{trainer}: {' | '.join(sorted(each))}" for trainer, each in sorted(by_trainer.items()) if len(each) > 1]
    return found or ([" | ".join(sorted(names))] if bare and len(names) > 1 else [])


def in_words(label: str) -> str:
    """A label as a page shows it: `aft paper v1 0f3a9c12, msm paper v1 77be0d41`."""
    return label.replace("=", " ").replace(";", ",") if _read(label) else label


def _read(label: str) -> dict[str, str]:
    parts = [part.split("=", 1) for part in label.split("; ")]
    return {part[0]: part[1] for part in parts} if all(len(part) == 2 for part in parts) else {}


def _name(recipe: str) -> str:
    return recipe.split(" ", 1)[0]
