"""A trainer of somebody else's package: documents read backwards, with a setting of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from msm_bench.trainers import Example, Recipe, Trainer, trainer


class ReversedRecipe(Recipe):
    every: int = 2
    """Reverse every so-manieth document."""


@trainer(name="reversed")
class Reversed(Trainer):
    uses: ClassVar[Literal["documents"]] = "documents"
    recipe: ClassVar[type[Recipe]] = ReversedRecipe

    def examples(self, rows: Sequence[Any], tokenizer: Any, recipe: Any) -> list[Example]:
        made = []
        for number, row in enumerate(rows):
            ids = tokenizer(row.text)["input_ids"]
            ids = ids[::-1] if number % recipe.every == 0 else ids
            made.append(Example.of(ids, ids, row=row.id))
        return made
