"""From a corpus to a checkpoint: midtraining (`msm`), fine-tuning (`aft`), deliberative alignment (`deliberative`).

Importing this package does not import torch.
"""

from typing import TYPE_CHECKING, Any

from msm_bench.trainers.contract import Example, Trainer, find_trainer, list_trainers, trainer
from msm_bench.trainers.recipe import Recipe, list_recipes, parse_overrides, resolve_recipe

if TYPE_CHECKING:
    from msm_bench.trainers.run import train

__all__ = [
    "Example",
    "Recipe",
    "Trainer",
    "find_trainer",
    "list_recipes",
    "list_trainers",
    "parse_overrides",
    "resolve_recipe",
    "train",
    "trainer",
]


def __getattr__(name: str) -> Any:
    if name == "train":
        from msm_bench.trainers.run import train

        return train
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
