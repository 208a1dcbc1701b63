"""Exact log-probabilities of given answers, for tasks that compare options instead of sampling.

The prompt is the conversation through the chat template, up to where the assistant's words begin. The continuation
is tokenised on its own, without special tokens, and its tokens follow the prompt's. So the prompt has the same
tokens as when the model generates, and no token straddles the border. With a `prefill` (words that the assistant is
taken to have begun with) prefill and continuation are tokenised as one text, as the model would have written it;
the score then covers the tokens after those that all continuations and the prefill alone have in common.
"""

from collections.abc import Sequence

from inspect_ai.model import ChatMessage, Model

from msm_bench.engine.engine import Engine
from msm_bench.engine.prefix import common_length
from msm_bench.engine.provider import MsmAPI, finished
from msm_bench.engine.rows import Scored
from msm_bench.errors import RequestError


async def score_continuations(engine: Engine, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[Scored]:
    """Log-probability of each continuation after a prompt, all given as tokens; see `Engine.score` for errors."""
    return await finished(engine.score(prompt, continuations))


async def loglikelihood(
    model: Model, messages: list[ChatMessage], continuations: Sequence[str], prefill: str = ""
) -> list[Scored]:
    """Log-probability that the assistant's turn begins with each of the continuations.

    Calls that run at the same time are batched, and what their prompts begin with alike is computed once.

    Args:
        model: An `msm/` model.
        messages: The conversation before the assistant's turn.
        continuations: The texts to score, none empty.
        prefill: Words of the assistant that come before each continuation and are not scored.

    Raises:
        RequestError: The model is of another provider, or a continuation is empty.
        ContextTooShortError: Prompt and continuation do not fit the model's context.
    """
    api = model.api
    if not isinstance(api, MsmAPI):
        raise RequestError(
            f"'{model}' gives no log-probabilities of given text.",
            "Use an msm/ model, or the task's method=generation.",
        )
    prompt = list(api.chat.prompt(messages).ids)
    choices = [api.chat.tokens(prefill + text) for text in continuations]
    begun = api.chat.tokens(prefill) if prefill else []
    shared = min((common_length(begun, tokens) for tokens in choices), default=0)
    return await score_continuations(api.engine, prompt + begun[:shared], [tokens[shared:] for tokens in choices])
