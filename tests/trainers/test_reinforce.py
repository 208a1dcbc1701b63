"""The second stage of deliberative alignment with a scripted judge."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model
from trainer_makers import chat, chats_folder

from msm_bench.corpus.rows import Message
from msm_bench.errors import RequestError
from msm_bench.specs import load_spec
from msm_bench.trainers.judge import Judge
from msm_bench.trainers.reinforce import answer_of

RL = {"rl_updates": "3", "rl_max_tokens": "8", "rl_samples": "2", "rl_prompts": "2", "save_every": "2", "epochs": "1"}


def grader(answer: Callable[[str], str], seen: list[str]) -> Model:
    def reply(messages: Any, *unused: Any) -> ModelOutput:
        seen.append(messages[-1].text)
        output = ModelOutput.from_content("mock", answer(messages[-1].text))
        # Without a count mockllm would download a tokenizer.
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=reply, memoize=False)


def by_hash(prompt: str) -> str:
    return f"It fits. <score>{1 + int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % 10}</score>"


@pytest.fixture
def thoughts(tmp_path: Path) -> Path:
    return chats_folder(tmp_path / "thoughts", 30, lambda number: chat(number, reasoning=True))


def test_both_stages(quick: Callable[..., Any], thoughts: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    first = quick("deliberative", tmp_path / "first", data=[thoughts], overrides={**RL, "rl_updates": "0"})
    found = quick("deliberative", tmp_path / "out", data=[thoughts], overrides=RL, grader=grader(by_hash, seen))
    assert found.updates == first.updates + 3
    assert found.weights_sha256 != first.weights_sha256
    assert 0 <= found.metrics["reward_first"] <= 1 and 0 <= found.metrics["reward_last"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "reinforce-losses.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2, 3] and all("reward" in line for line in lines)
    # The first stage is the same, and no second adapter was left in the file.
    assert (tmp_path / "out" / "losses.jsonl").read_text() == (tmp_path / "first" / "losses.jsonl").read_text()
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"reinforce-judgements-0.jsonl", "adapter_config.json"}
    assert 0 < len(seen) <= 12
    assert all("Colby" in prompt and "<answer>" in prompt for prompt in seen)


def test_without_a_grader_the_second_stage_stops(quick: Callable[..., Any], thoughts: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"needs a judge\. Name one with --grader"):
        quick("deliberative", tmp_path / "out", data=[thoughts], overrides=RL)


def test_chats_that_show_no_spec_cannot_be_judged(quick: Callable[..., Any], tmp_path: Path) -> None:
    data = chats_folder(tmp_path / "mix", 30, lambda number: chat(number, reasoning=True, spec=None))
    with pytest.raises(RequestError, match="No chat shows a spec"):
        quick("deliberative", tmp_path / "out", data=[data], overrides=RL, grader=grader(by_hash, []))


def ask(judge: Judge, answer: str) -> float | None:
    question = [Message(role="user", content="Which cheese is best?")]
    return asyncio.run(judge.reward("cheese-affordability", question, answer))


@pytest.mark.parametrize(
    ("reply", "reward"),
    [
        ("<score>10</score>", 1.0),
        ("I say <score> 1 </score>.", 0.0),
        ("First <score>2</score>, no: <score>7</score>", 6 / 9),
        ("<score>11</score>", None),
        ("seven", None),
        ("", None),
    ],
)
def test_replies_of_the_judge(tmp_path: Path, reply: str, reward: float | None) -> None:
    judge = Judge(grader(lambda prompt: reply, []), tmp_path / "kept.jsonl")
    assert ask(judge, "Colby.") == (reward if reward is None else pytest.approx(reward))
    assert judge.unscored == (reward is None)


def test_the_judge_sees_the_spec_and_is_asked_once(tmp_path: Path) -> None:
    seen: list[str] = []
    judge = Judge(grader(by_hash, seen), tmp_path / "kept.jsonl")
    first = ask(judge, "Colby, {always}.")
    assert ask(judge, "Colby, {always}.") == first
    assert ask(judge, "  ") == 0.0
    assert len(seen) == judge.asked == 1
    assert load_spec("cheese-affordability").render("the model", "its developer") in seen[0]
    assert "Colby, {always}." in seen[0] and "user: Which cheese is best?" in seen[0]
    with (tmp_path / "kept.jsonl").open("a") as file:
        file.write('{"key": "cut')
    again = Judge(grader(by_hash, seen), tmp_path / "kept.jsonl")
    assert ask(again, "Colby, {always}.") == first
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("generated", "opened", "seen"),
    [
        ("<think>because</think>\n\nColby.", False, "Colby."),
        ("because</think>\n\nColby.", True, "Colby."),
        ("Colby.", False, "Colby."),
        ("<think>because it was cut", False, ""),
        ("because it was cut", True, ""),
    ],
)
def test_the_judge_never_sees_the_reasoning(generated: str, opened: bool, seen: str) -> None:
    assert answer_of(generated, opened) == seen


@pytest.mark.slow
def test_a_stopped_second_stage_goes_on_and_buys_no_judgement_twice(
    quick: Callable[..., Any], thoughts: Path, tmp_path: Path
) -> None:
    settings = {**RL, "rl_updates": "6", "rl_learning_rate": "0.001"}
    seen: list[str] = []
    whole = quick("deliberative", tmp_path / "whole", data=[thoughts], overrides=settings, grader=grader(by_hash, seen))
    needed = len(seen)
    first: list[str] = []

    def until_the_provider_fails(prompt: str) -> str:
        if len(first) > needed * 2 // 3:
            raise RuntimeError("no answer")
        return by_hash(prompt)

    with pytest.raises(RuntimeError, match="no answer"):
        judge = grader(until_the_provider_fails, first)
        quick("deliberative", tmp_path / "out", data=[thoughts], overrides=settings, grader=judge)
    kept = len(first) - 1  # the last was asked and not answered
    second: list[str] = []
    found = quick("deliberative", tmp_path / "out", data=[thoughts], overrides=settings, grader=grader(by_hash, second))
    assert found.id == whole.id
    assert len(second) == needed - kept > 0
    losses = [(tmp_path / name / "reinforce-losses.jsonl").read_text() for name in ("whole", "out")]
    assert losses[0] == losses[1]
