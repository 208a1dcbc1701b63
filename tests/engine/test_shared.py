"""What the engine computes equals what plain transformers computes."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from msm_bench.engine.engine import Engine
from msm_bench.engine.sampling import Sampling
from msm_bench.errors import WorkError

SHARING = ["llama", "qwen2", "qwen3", "mistral"]


def some_tokens(length: int, seed: int) -> list[int]:
    return torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    output = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, pad_token_id=0)
    return output[0, len(prompt) :].tolist()


def plain_logprobs(model: Any, prompt: list[int], tokens: list[int]) -> list[float]:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    return [logprobs[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens)]


@pytest.mark.parametrize("architecture", [*SHARING, "windowed"])
@pytest.mark.parametrize("chunk", [1024, 50])
def test_many_prompts_at_once(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], architecture: str, chunk: int
) -> None:
    """Greedy answers and their log-probabilities, for prompts that share much, little and nothing."""
    engine, model = engine_of(architecture), plain(architecture)
    assert engine.kind == ("padded" if architecture == "windowed" else "shared")
    engine._runner.chunk = chunk
    common = some_tokens(150, 1)
    prompts = [common + some_tokens(90, 2)] * 3 + [common + some_tokens(100, 3), common + some_tokens(5, 4)]
    prompts += [some_tokens(80, 5), some_tokens(3, 6), some_tokens(1, 7), common]
    asked = [
        engine.generate(prompt, Sampling(temperature=0, max_tokens=12 + 5 * index, top_logprobs=2))
        for index, prompt in enumerate(prompts)
    ]
    for index, (prompt, future) in enumerate(zip(prompts, asked, strict=True)):
        found = future.result(timeout=60)
        assert list(found.tokens) == greedy(model, prompt, 12 + 5 * index)
        assert found.logprobs is not None
        expected = plain_logprobs(model, prompt, list(found.tokens))
        assert [each.logprob for each in found.logprobs] == pytest.approx(expected, abs=1e-4)
        assert all(each.top[0][1] >= each.top[1][1] and each.top[0][0] == each.token for each in found.logprobs)


def test_the_shortest_prompt_of_a_burst_answers_first(engine_of: Callable[..., Engine]) -> None:
    """Where nothing runs yet; the others follow as they came."""
    engine = engine_of()
    engine._runner.chunk = 20  # a prompt of 90 tokens fills what is computed between two steps
    ended: list[int] = []
    for length in (180, 170, 90, 200):
        future = engine.generate(some_tokens(length, length), Sampling(temperature=0, max_tokens=30))
        future.add_done_callback(lambda done, length=length: ended.append(length))  # type: ignore[misc]
    future.result(timeout=60)
    assert ended == [90, 180, 170, 200]


def test_prefix_is_computed_once(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of()
    prompt = some_tokens(200, 1)
    first = [engine.generate(prompt, Sampling(temperature=0, max_tokens=2)) for _ in range(4)]
    assert sorted(future.result().cached for future in first) == [0, 199, 199, 199]
    # A later prompt that goes another way after 100 tokens cuts the stored one in two.
    other = engine.generate(prompt[:100] + some_tokens(100, 2), Sampling(temperature=0, max_tokens=2)).result()
    assert other.cached == 100
    assert engine.generate(prompt, Sampling(temperature=0, max_tokens=2)).result().cached == 199


def test_cutting_a_prefix_that_running_rows_stand_on(engine_of: Callable[..., Engine], plain: Callable[..., Any]) -> None:
    engine, model = engine_of(), plain()
    prompt = some_tokens(200, 1)
    long = engine.generate(prompt, Sampling(temperature=0, max_tokens=150))
    while not engine._runner.rows:
        time.sleep(0.001)
    scored = engine.score(prompt[:120] + some_tokens(30, 8), [some_tokens(4, 9)]).result()
    short = engine.generate(prompt[:90] + some_tokens(90, 3), Sampling(temperature=0, max_tokens=5)).result()
    assert list(long.result().tokens) == greedy(model, prompt, 150)
    assert list(short.tokens) == greedy(model, prompt[:90] + some_tokens(90, 3), 5)
    assert scored[0].token_logprobs == pytest.approx(
        plain_logprobs(model, prompt[:120] + some_tokens(30, 8), some_tokens(4, 9)), abs=1e-4
    )


def test_what_memory_held_before_does_not_matter(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths look at slots that are not filled yet."""
    engine, model = engine_of(), plain()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **rest: empty(*size, **rest).fill_(torch.nan))
    prompts = [some_tokens(3 + 9 * index, index) for index in range(6)]
    asked = [engine.generate(prompt, Sampling(temperature=0, max_tokens=9)) for prompt in prompts]
    for prompt, future in zip(prompts, asked, strict=True):
        assert list(future.result(timeout=60).tokens) == greedy(model, prompt, 9)


def test_little_memory_means_smaller_batches_not_errors(engine_of: Callable[..., Engine], plain: Callable[..., Any]) -> None:
    engine, model = engine_of(), plain()
    runner: Any = engine._runner
    runner.budget = 500 * runner.tree.token_bytes
    prompts = [some_tokens(60 + 20 * index, index) for index in range(8)]
    asked = [engine.generate(prompt, Sampling(temperature=0, max_tokens=70)) for prompt in prompts]
    for prompt, future in zip(prompts, asked, strict=True):
        assert list(future.result(timeout=60).tokens) == greedy(model, prompt, 70)


def test_running_out_of_memory_lowers_the_batch(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, model = engine_of(), plain()
    runner: Any = engine._runner
    whole = runner.step

    def step() -> torch.Tensor:
        if len(runner.rows) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return whole()

    monkeypatch.setattr(runner, "step", step)
    prompts = [some_tokens(70, index) for index in range(6)]
    asked = [engine.generate(prompt, Sampling(temperature=0, max_tokens=5)) for prompt in prompts]
    for prompt, future in zip(prompts, asked, strict=True):
        assert list(future.result(timeout=60).tokens) == greedy(model, prompt, 5)
    assert runner.max_rows <= 2


def test_too_large_a_request_fails_and_prefixes_that_pile_up_do_not(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    runner: Any = engine._runner
    whole = runner._forward

    def forward(*args: Any) -> torch.Tensor:
        if runner.tree.bytes() > 400 * runner.tree.token_bytes:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        found: torch.Tensor = whole(*args)
        return found

    monkeypatch.setattr(runner, "_forward", forward)
    asked = [engine.generate(some_tokens(300, index), Sampling(max_tokens=3)) for index in range(6)]
    assert all(len(future.result(timeout=60).tokens) <= 3 for future in asked)
    with pytest.raises(WorkError, match="even on one request"):
        engine.generate(some_tokens(500, 9), Sampling(max_tokens=3)).result(timeout=60)
    assert engine.generate(some_tokens(300, 9), Sampling(max_tokens=3)).result(timeout=60).tokens


def test_an_error_fails_its_requests_and_the_engine_goes_on(
    engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    with monkeypatch.context() as patch:
        patch.setattr(engine._runner, "step", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.generate(some_tokens(9, 1), Sampling()).result(timeout=60)
    assert engine.generate(some_tokens(9, 1), Sampling(max_tokens=3)).result(timeout=60).tokens


def test_cancelled_requests_make_room(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of(max_batch_size=2)
    runner: Any = engine._runner
    asked = [engine.generate(some_tokens(80, index), Sampling(max_tokens=400)) for index in range(5)]
    while not runner.rows:
        time.sleep(0.001)
    for future in asked[:4]:
        assert future.cancel()
    assert asked[4].result(timeout=60).tokens
    assert len(runner.rows) <= 2
    while runner.rows and not all(row.ended for row in runner.rows):
        time.sleep(0.001)


def test_closing_cancels(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of()
    future = engine.generate(some_tokens(80, 1), Sampling(max_tokens=400))
    engine.close()
    assert future.cancelled()
    assert engine.generate(some_tokens(80, 1), Sampling(max_tokens=2)).result(timeout=60).tokens
