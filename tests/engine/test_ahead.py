"""Steps that begin before the last tokens are known, as on a card, give what steps one after another give."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from msm_bench.engine.engine import Engine
from msm_bench.engine.sampling import Sampling, noise_key


def some_tokens(length: int, seed: int) -> list[int]:
    return torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


COMMON = some_tokens(120, 41)
PROMPTS = [COMMON] * 6 + [COMMON + some_tokens(9, 2)] * 4 + [some_tokens(30, 3), some_tokens(1, 4)]
NO_END = {2: -1e9}  # the model's end token
KINDS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.0, "frequency_penalty": 0.5, "presence_penalty": 0.5},
]


def samplings(logprobs: bool) -> list[Sampling]:
    """Rows that end after 3 to 38 tokens, some at an end token of their own."""
    return [
        Sampling(
            max_tokens=3 + 5 * (index % 8),
            ends=frozenset(range(5, 25)) if index % 3 == 0 else frozenset(),
            top_logprobs=1 if logprobs and index % 2 else None,
            key=noise_key(1, PROMPTS[index], index),
            **KINDS[index % len(KINDS)],
        )
        for index in range(len(PROMPTS))
    ]


def answers(engine: Engine, logprobs: bool) -> list[Any]:
    """All requests, the last of them asked for while the first are under way, one given up meanwhile."""
    asked = [engine.generate(prompt, each) for prompt, each in zip(PROMPTS[:9], samplings(logprobs), strict=False)]
    given_up = engine.generate(COMMON, Sampling(max_tokens=1000, logit_bias=NO_END))
    asked[0].result(timeout=60)
    given_up.cancel()
    asked += [engine.generate(prompt, each) for prompt, each in zip(PROMPTS[9:], samplings(logprobs)[9:], strict=True)]
    found = [future.result(timeout=60) for future in asked]
    return [(each.tokens, each.ending, [one.token for one in each.logprobs or []]) for each in found]


def ahead(engine: Engine, patch: pytest.MonkeyPatch) -> list[bool]:
    """Let steps run ahead until the test ends; the list grows by whether a step did."""
    runner: Any = engine._runner
    steps: list[bool] = []
    step = runner.step

    def watched(newest: Any = None) -> Any:
        steps.append(newest is not None)
        return step(newest)

    patch.setattr(runner, "step", watched)
    patch.setattr(runner, "ahead", True)
    return steps


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("max_rows", [64, 4])
def test_same_answers(engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, logprobs: bool, max_rows: int) -> None:
    engine = engine_of()
    monkeypatch.setattr(engine._runner, "max_rows", max_rows)
    expected = answers(engine, logprobs)
    steps = ahead(engine, monkeypatch)
    assert answers(engine, logprobs) == expected
    assert any(steps)


def test_no_step_for_rows_that_all_end(engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    steps = ahead(engine, monkeypatch)
    assert len(engine.generate(COMMON, Sampling(max_tokens=7, logit_bias=NO_END)).result(timeout=60).tokens) == 7
    assert steps == [False] + [True] * 6


def test_what_was_drawn_is_kept_when_memory_runs_out(engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that runs out of memory began before its last tokens were with their rows."""
    engine = engine_of()
    asked = [Sampling(max_tokens=20, logit_bias=NO_END, key=noise_key(2, COMMON, index)) for index in range(3)]
    expected = [engine.generate(COMMON, each).result(timeout=60).tokens for each in asked]
    ahead(engine, monkeypatch)
    runner: Any = engine._runner
    step, count = runner.step, 0

    def failing(newest: Any = None) -> Any:
        nonlocal count
        count += newest is not None
        if count == 5:
            count += 1
            raise torch.OutOfMemoryError("out of memory")
        return step(newest)

    monkeypatch.setattr(runner, "step", failing)
    futures = [engine.generate(COMMON, each) for each in asked]
    assert [future.result(timeout=60).tokens for future in futures] == expected
    assert count > 5


def test_a_call_between_two_steps_sees_all_tokens(engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    ahead(engine, monkeypatch)
    runner: Any = engine._runner
    step, went = runner.step, threading.Event()

    def watched(newest: Any = None) -> Any:
        if newest is not None:
            went.set()
        return step(newest)

    monkeypatch.setattr(runner, "step", watched)
    future = engine.generate(COMMON, Sampling(max_tokens=1500, logit_bias=NO_END))
    seen: list[tuple[int, int]] = []
    for _ in range(5):
        went.clear()
        assert went.wait(60)
        seen += engine._scheduler.call(lambda: [(len(row.tokens), row.length) for row in runner.rows])
    future.cancel()
    assert seen and all(tokens == length for tokens, length in seen)
