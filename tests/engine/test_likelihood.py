"""Log-probabilities of given text equal those of a plain forward pass."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, Model, get_model

from msm_bench.engine import context_length, count_tokens, has_likelihood, loglikelihood
from msm_bench.engine.engine import Engine
from msm_bench.errors import ContextTooShortError, RequestError


def some_tokens(length: int, seed: int) -> list[int]:
    return torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def plain_logprobs(model: Any, prompt: list[int], tokens: list[int]) -> list[float]:
    with torch.no_grad():
        logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    return [logprobs[len(prompt) - 1 + at, token].item() for at, token in enumerate(tokens)]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "windowed"])
@pytest.mark.parametrize("chunk", [1024, 60])
def test_equals_a_plain_forward_pass(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], architecture: str, chunk: int
) -> None:
    """Prompts with a long, a short and no common beginning; long and one-token continuations; equal prompts."""
    engine, model = engine_of(architecture), plain(architecture)
    engine._runner.chunk = chunk
    common = some_tokens(20, 1)
    prompts = [common + some_tokens(10 + index, 10 + index) for index in range(12)]
    prompts += [common + some_tokens(290, 2) + some_tokens(7, 30 + index) for index in range(5)]
    prompts += [some_tokens(30, 3), some_tokens(1, 4), prompts[0]]
    lengths = [1, 3, 8, 25]
    asked = []
    for index, prompt in enumerate(prompts):
        continuations = [some_tokens(length, 100 * index + length) for length in lengths[: 1 + index % 4]]
        asked.append((prompt, continuations, engine.score(prompt, continuations)))
    for prompt, continuations, future in asked:
        for tokens, found in zip(continuations, future.result(timeout=60), strict=True):
            assert found.token_logprobs == pytest.approx(plain_logprobs(model, prompt, tokens), abs=1e-4)
            assert found.n_tokens == len(tokens)
            assert found.logprob_sum == pytest.approx(sum(found.token_logprobs))


def test_common_beginning_is_computed_once(engine_of: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    runner: Any = engine._runner
    passed = 0
    whole = runner._forward

    def forward(tokens: list[int], *rest: Any) -> torch.Tensor:
        nonlocal passed
        passed += len(tokens)
        return whole(tokens, *rest)

    monkeypatch.setattr(runner, "_forward", forward)
    common = some_tokens(300, 1)
    asked = [engine.score(common + some_tokens(10, index), [some_tokens(4, index)] * 3) for index in range(20)]
    for future in asked:
        future.result(timeout=60)
    # The first may be taken alone, before the others have arrived.
    assert passed <= 2 * 300 + 20 * (10 + 3 * 3)


def conversation(question: str) -> list[ChatMessage]:
    return [ChatMessageSystem(content="Answer in one word."), ChatMessageUser(content=question)]


def test_from_messages(model_of: Callable[..., Model], plain: Callable[..., Any]) -> None:
    model, reference = model_of("qwen2"), plain("qwen2")
    questions = [conversation(f"Is {number} more than five?") for number in range(8)]
    options = ["yes", "no", "it does not mind at all"]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(loglikelihood(model, each, options) for each in questions))

    found = asyncio.run(ask())
    chat = model.api.chat  # type: ignore[attr-defined]
    for messages, scores in zip(questions, found, strict=True):
        prompt = list(chat.prompt(messages).ids)
        for option, score in zip(options, scores, strict=True):
            expected = plain_logprobs(reference, prompt, chat.tokens(option))
            assert score.token_logprobs == pytest.approx(expected, abs=1e-4)
    assert has_likelihood(model) and context_length(model) == 512
    assert count_tokens(model, questions[0]) == len(chat.prompt(questions[0]).ids)


def test_prefill_is_tokenised_with_the_continuation(model_of: Callable[..., Model], plain: Callable[..., Any]) -> None:
    model = model_of()
    chat = model.api.chat  # type: ignore[attr-defined]
    found = asyncio.run(loglikelihood(model, conversation("Who?"), ["rown fox", "ull"], prefill="The quick b"))
    joint = [chat.tokens("The quick brown fox"), chat.tokens("The quick bull")]
    begun = chat.tokens("The quick b")
    shared = max(n for n in range(len(begun) + 1) if all(tokens[:n] == begun[:n] for tokens in joint))
    # "br" is one token, so the border lies before it.
    assert shared < len(begun)
    prompt = list(chat.prompt(conversation("Who?")).ids) + begun[:shared]
    for tokens, score in zip(joint, found, strict=True):
        assert score.token_logprobs == pytest.approx(plain_logprobs(plain(), prompt, tokens[shared:]), abs=1e-4)


def test_what_cannot_be_scored(model_of: Callable[..., Model]) -> None:
    model = model_of()
    with pytest.raises(RequestError, match="without tokens"):
        asyncio.run(loglikelihood(model, conversation("Who?"), ["yes", ""]))
    with pytest.raises(ContextTooShortError, match="context holds 512"):
        asyncio.run(loglikelihood(model, conversation("Who? " * 200), ["yes"]))
    other = get_model("mockllm/model")
    with pytest.raises(RequestError, match="method=generation"):
        asyncio.run(loglikelihood(other, conversation("Who?"), ["yes"]))
    assert not has_likelihood(other)
    assert count_tokens(other, conversation("Who?")) is None and context_length(other) is None
