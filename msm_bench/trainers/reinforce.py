"""The second stage of deliberative alignment: TRL's GRPO, with a reward that knows the spec and not the reasoning."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from msm_bench.corpus.rows import ChatRow, Message
from msm_bench.engine.messages import split_reasoning
from msm_bench.engine.text import Detokenizer
from msm_bench.errors import RequestError
from msm_bench.trainers.builtin import DeliberativeRecipe
from msm_bench.trainers.fitting import LOSSES_FILE, common, on_one_card, run
from msm_bench.trainers.judge import Judge, mean_reward
from msm_bench.trainers.stage import Stage
from msm_bench.trainers.states import Losses, States, processes, read_losses

logger = logging.getLogger(__name__)


def reinforce(stage: Stage) -> None:
    """Reinforce a model that the first stage trained. Goes on from the last complete state, as the first stage does.

    Args:
        stage: After `next_token`; `grader` is asked for the rewards.

    Raises:
        RequestError: the answers of an update cannot be divided among the processes.
        WorkError: the loss is not a number.
    """
    recipe = stage.recipe.settings
    assert isinstance(recipe, DeliberativeRecipe)
    folder = stage.folder / "reinforce"
    folder.mkdir(exist_ok=True)
    judge = Judge(stage.grader, folder / f"judgements-{processes().process_index}.jsonl")
    rows = {row.id: row for row in stage.rows if isinstance(row, ChatRow) and row.spec is not None}
    text = Detokenizer(stage.tokenizer)
    opened = _opens_thinking(stage, next(iter(rows.values())))

    async def spec_reward(completion_ids: Sequence[Sequence[int]], row: Sequence[str], **unused: Any) -> list[float | None]:
        rewards = []
        for ids, name in zip(completion_ids, row, strict=True):
            source = rows[name]
            rewards.append(await judge.reward(str(source.spec), source.messages[:-1], answer_of(text.text(ids), opened)))
        return rewards

    trainer = GRPOTrainer(
        model=stage.model,
        reward_funcs=spec_reward,  # type: ignore[arg-type]  # TRL awaits async ones
        args=_arguments(recipe, stage),
        train_dataset=Dataset.from_list([{"prompt": _dicts(row.messages[:-1]), "row": name} for name, row in rows.items()]),
        processing_class=stage.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(States(folder))
    trainer.add_callback(Losses(folder / LOSSES_FILE, diverges=False))
    run(trainer, folder)
    # TRL keeps the first stage's adapter beside the trained one, to measure the divergence from it.
    if "ref" in stage.model.peft_config:
        stage.model.delete_adapter("ref")
    lines = read_losses(folder / LOSSES_FILE)
    tenth = max(len(lines) // 10, 1)
    for name, part in (("reward_first", lines[:tenth]), ("reward_last", lines[-tenth:])):
        reward = mean_reward(part)
        if reward is not None:
            stage.metrics[name] = reward
    if judge.unscored:
        logger.warning("The grader's reply held no score %d times; those samples were left out.", judge.unscored)
    stage.trainer, stage.updates = trainer, stage.updates + trainer.state.global_step


def answer_of(text: str, opened: bool) -> str:
    """What the judge sees of a generation: the part after its reasoning, nothing where the reasoning never ended.

    Args:
        text: What was generated.
        opened: Whether the prompt ended inside a thinking block.
    """
    return split_reasoning(text, opened)[1]


def _arguments(recipe: DeliberativeRecipe, stage: Stage) -> GRPOConfig:
    count = processes().num_processes
    answers = recipe.rl_prompts * recipe.rl_samples
    if answers % (recipe.micro_batch_rows * count):
        raise RequestError(
            f"{answers} answers an update cannot be divided among {count} processes of {recipe.micro_batch_rows} rows.",
            "Choose --set rl_prompts and rl_samples so that they can.",
        )
    settings = common(recipe, stage.folder / "reinforce", recipe.rl_updates)
    settings |= {
        "learning_rate": recipe.rl_learning_rate,
        "gradient_accumulation_steps": answers // (recipe.micro_batch_rows * count),
        "num_generations": recipe.rl_samples,
        "max_completion_length": recipe.rl_max_tokens,
        "temperature": recipe.rl_temperature,
        "beta": recipe.rl_beta,
        "chat_template_kwargs": {} if recipe.thinking is None else {"enable_thinking": recipe.thinking},
    }
    return on_one_card(GRPOConfig(**settings))


def _opens_thinking(stage: Stage, row: ChatRow) -> bool:
    """Whether the template's prompt ends inside a thinking block."""
    recipe = stage.recipe.settings
    extra = {} if recipe.thinking is None else {"enable_thinking": recipe.thinking}
    prompt = stage.tokenizer.apply_chat_template(_dicts(row.messages[:-1]), tokenize=False, add_generation_prompt=True, **extra)
    return str(prompt).rstrip().endswith("<think>")


def _dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
