"""The `msm/` model provider: sampling with shared prefixes, and exact likelihoods.

Importing this package does not import torch. A task that needs to know whether a prompt fits asks `count_tokens`
and `context_length`; one that compares options asks `loglikelihood`.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sniffio
from inspect_ai.log._samples import sample_active  # neither has a public name
from inspect_ai.model import ChatMessage, Model
from inspect_ai.model._model import active_model

if TYPE_CHECKING:
    from msm_bench.engine.provider import MsmAPI
    from msm_bench.engine.rows import Scored

__all__ = ["context_length", "count_tokens", "has_likelihood", "loglikelihood", "running_model"]


def has_likelihood(model: Model) -> bool:
    """Whether `loglikelihood` works with a model, that is, whether it is an `msm/` model."""
    return _ours(model) is not None


def context_length(model: Model) -> int | None:
    """The longest sequence of a model in tokens, None where the provider is not ours."""
    api = _ours(model)
    return None if api is None else api.context_length


def count_tokens(model: Model, messages: list[ChatMessage]) -> int | None:
    """The tokens of a conversation as the model would get it, None where the provider is not ours."""
    api = _ours(model)
    return None if api is None else len(api.chat.prompt(messages).ids)


async def loglikelihood(
    model: Model, messages: list[ChatMessage], continuations: Sequence[str], prefill: str = ""
) -> "list[Scored]":
    """Log-probability of each continuation as the assistant's answer; see `likelihood.loglikelihood`."""
    from msm_bench.engine import likelihood

    return await likelihood.loglikelihood(model, messages, continuations, prefill)


def running_model() -> Model | None:
    """The model that Inspect makes a task for, None where that is not known.

    While Inspect makes a task that was named to it, its event loop runs and the active model is the one to be evaluated. In
    plain Python code a model that is active is left over from an earlier run, and inside a sample it is that sample's.
    """
    try:
        sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return None
    return active_model() if sample_active() is None else None


def _ours(model: Model) -> "MsmAPI | None":
    # A model of ours cannot exist before the provider's module is imported.
    provider = sys.modules.get("msm_bench.engine.provider")
    if provider is None or not isinstance(model.api, provider.MsmAPI):
        return None
    api: MsmAPI = model.api
    return api
