"""One stage of training: a model, its data, and a folder in which a killed run finds its last complete state."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msm_bench.trainers.contract import Example
from msm_bench.trainers.data import Rows
from msm_bench.trainers.recipe import Recipe, ResolvedRecipe


@dataclass
class Stage:
    """What a trainer's `fit` works on.

    Attributes:
        recipe: The resolved recipe.
        model: The peft model with its adapter trainable, the same on every process.
        tokenizer: With the chat template that is saved.
        rows: The corpus rows trained on.
        train: Their sequences.
        held_out: Sequences for the loss with and without the adapter.
        folder: For states and losses, kept until the checkpoint stands.
        grader: Name of the judge of a second stage, or a model of Inspect; None where there is none.
        control: Whether the specs of `rows` include controls.
        metrics: Filled by training: see `checkpoints.manifest.Checkpoint.metrics`.
        updates: Optimizer updates done.
        trainer: The transformers trainer of the last stage, which can gather and save the weights.
    """

    recipe: ResolvedRecipe[Recipe]
    model: Any
    tokenizer: Any
    rows: Rows
    train: Sequence[Example]
    held_out: Sequence[Example]
    folder: Path
    grader: Any = None
    metrics: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    trainer: Any = None

    def next_token(self) -> None:
        """Train on next tokens with the recipe's optimizer and schedule; goes on from the last complete state in `folder`.

        Raises:
            WorkError: the loss is not a number or diverges, or the adapter changed nothing. The states stay.
        """
        from msm_bench.trainers.fitting import next_token

        next_token(self)
