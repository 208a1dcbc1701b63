"""The three built-in trainers: `msm`, `aft` and `deliberative`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from msm_bench.errors import RequestError
from msm_bench.trainers.contract import Example, Trainer, trainer
from msm_bench.trainers.recipe import Recipe

if TYPE_CHECKING:
    from msm_bench.trainers.stage import Stage


@trainer(name="msm")
class Msm(Trainer):
    """Model spec midtraining: next-token training on documents, each with the end token behind it.

    A document longer than a row is split into pieces of at most a row; the run card counts them.
    """

    uses: ClassVar[Literal["documents"]] = "documents"

    def examples(self, rows: Sequence[Any], tokenizer: Any, recipe: Recipe) -> list[Example]:
        end = _document_end(tokenizer, recipe)
        made = []
        for row in rows:
            ids = list(tokenizer(row.text)["input_ids"])
            ids += [] if ids[-1:] == [end] else [end]
            for start in range(0, len(ids), recipe.max_tokens):
                piece = ids[start : start + recipe.max_tokens]
                # A last piece of one token would hold nothing that can be predicted.
                if len(piece) > 1:
                    made.append(Example.of(piece, piece, row=row.id))
        return made


def _document_end(tokenizer: Any, recipe: Recipe) -> int:
    name = recipe.document_end or tokenizer.eos_token
    end = None if name is None else tokenizer.convert_tokens_to_ids(name)
    if end is None or (recipe.document_end is not None and end == tokenizer.unk_token_id):
        raise RequestError(
            f"The tokenizer has no token '{name}' to end a document with.", "Name one with --set document_end=TOKEN."
        )
    return int(end)


@trainer(name="aft")
class Aft(Trainer):
    """Alignment fine-tuning: chats with loss on the assistant's words alone, with or without the reasoning.

    Instruction-tuning only, mixtures with rows of another spec, and AFT on a midtrained model are this trainer with other
    data or a parent.
    """

    uses: ClassVar[Literal["chats"]] = "chats"

    def examples(self, rows: Sequence[Any], tokenizer: Any, recipe: Recipe) -> list[Example]:
        from msm_bench.trainers.chats import ChatExamples

        render = ChatExamples(tokenizer, recipe)
        return [example for row in rows for example in render.examples(row)]


class DeliberativeRecipe(Recipe):
    """The settings of the second stage beside those of the first."""

    rl_updates: int = Field(ge=0)
    """Updates of the second stage; 0 leaves it out."""
    rl_learning_rate: PositiveFloat
    rl_prompts: PositiveInt
    """Different prompts of one update."""
    rl_samples: int = Field(ge=2)
    """Answers to each prompt."""
    rl_max_tokens: PositiveInt
    rl_temperature: PositiveFloat
    rl_beta: float = Field(ge=0)
    """Weight of the divergence from the first stage's model."""


@trainer(name="deliberative")
class Deliberative(Aft):
    """Deliberative alignment: reasoning that was made with the spec in view is trained without it; then, where
    `rl_updates` is not 0, reinforcement learning against a judge that sees the spec and never the reasoning.

    The paper's baseline is the first stage alone.
    """

    recipe: ClassVar[type[Recipe]] = DeliberativeRecipe

    def check(self, rows: Sequence[Any], recipe: Any, grader: Any) -> None:
        """Chats with reasoning and, for the second stage, a judge and chats that show a spec must be there."""
        if not recipe.reasoning:
            raise RequestError("Deliberative alignment without reasoning is AFT.", "Use the trainer 'aft'.")
        if not any(message.reasoning for row in rows for message in row.messages):
            raise RequestError(
                f"None of the {len(rows)} chats holds reasoning.",
                "Generate chats with reasoning (made with the spec in view), or use the trainer 'aft'.",
            )
        if recipe.rl_updates and grader is None:
            raise RequestError(
                "The second stage needs a judge.", "Name one with --grader PROVIDER/MODEL, or use --set rl_updates=0."
            )
        if recipe.rl_updates and all(row.spec is None for row in rows):
            raise RequestError("No chat shows a spec to judge answers by.", "Use chats whose rows name their spec.")

    def fit(self, stage: "Stage") -> None:
        """The first stage, then the second where the recipe asks for it."""
        stage.next_token()
        if stage.recipe.settings.rl_updates:  # type: ignore[attr-defined]
            from msm_bench.trainers.reinforce import reinforce

            reinforce(stage)
