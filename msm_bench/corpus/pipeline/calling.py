"""One call: what is sent for an item, what came back, what became of it, what it cost.

The spec stands first and unchanged, the stage's instruction after it, and what differs comes last, so that a provider can
cache the shared part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)

from msm_bench.artefacts import sha256_of_text, sha256_of_value
from msm_bench.corpus.pipeline.batches import key_of
from msm_bench.corpus.pipeline.prices import Price, Usage
from msm_bench.corpus.pipeline.prompts import Prompt, asked_again
from msm_bench.corpus.pipeline.replies import Rejected, reading
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.stage import status_of
from msm_bench.corpus.pipeline.store import KEPT, Call

Role = Literal["generator", "grader"]
T = TypeVar("T")

_REFUSED_ITEM = {400, 413, 422}  # statuses that say that this one request is wrong


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One item of a stage.

    `read` makes the item's value from the text of an answer that ended by itself and raises `Rejected` where it does not fit;
    it must give the same for the same text.
    """

    stage: str
    item: str
    prompt: Prompt
    max_tokens: int
    read: Callable[[str], T]
    role: Role = "generator"


@dataclass(frozen=True)
class Step:
    """Where an item stands: the next request, or the one that was kept, or that it is over."""

    attempt: int
    reason: str | None
    """Of the rejection before this attempt."""
    request: str
    over: bool
    kept: bool


class Caller:
    """Makes calls.

    Args:
        spec: The spec's text, which stands first in every prompt; empty where the prompts themselves hold what they need.
        models: The model of each role.
        prices: The price of each role's model; None where it is not known.
        config: Settings of every call.
    """

    def __init__(self, spec: str, models: dict[Role, Model], prices: dict[Role, Price | None], config: GenerateConfig) -> None:
        self._spec = spec
        self._prices = prices
        self._config = config
        self._names: dict[Role, str] = {role: str(model) for role, model in models.items()}
        self._settings = config.model_dump(include={"temperature", "top_p", "reasoning_effort", "effort"}, exclude_none=True)
        self.recovered: dict[str, ModelOutput] = {}
        """Answers of batches of earlier runs, by `key_of` their request."""

    def request(self, ask: Ask[Any], attempt: int = 1, reason: str | None = None) -> str:
        """The hash of a request: of the model, all that is sent, and the settings that change what comes back."""
        sent = [_hash(self._spec), _hash(ask.prompt.instruction), _message(ask, attempt, reason)]
        return sha256_of_value([self._names[ask.role], sent, ask.max_tokens, self._settings])

    def messages(self, ask: Ask[Any], step: Step) -> list[ChatMessage]:
        """What is sent. Spec and instruction are blocks of their own with a mark behind each: the spec is cached for all
        stages, both together for this one, and what differs is never written to the cache."""
        shared = [ContentText(text=part, cache_breakpoint=True) for part in self._shared(ask)]
        user = ChatMessageUser(content=_message(ask, step.attempt, step.reason))
        return [ChatMessageSystem(content=[*shared]), user] if shared else [user]

    async def generate(self, ask: Ask[Any], messages: list[ChatMessage]) -> tuple[ModelOutput, bool]:
        """The answer, and whether it came at the price of a batch."""
        if self.recovered:
            texts = [*self._shared(ask), messages[-1].text]
            if (found := self.recovered.pop(key_of(self._names[ask.role], texts, ask.max_tokens), None)) is not None:
                return found, True
        config = self._config.merge(GenerateConfig(max_tokens=ask.max_tokens))
        if config.reasoning_effort is None and self._names[ask.role].startswith("anthropic/"):
            # Newer ones think unless told not to, which would be paid for and would take from the tokens of the text.
            config.reasoning_effort = "none"
        return await get_model(role=ask.role).generate(messages, config=config), bool(config.batch)

    def judged(self, ask: Ask[Any], step: Step, output: ModelOutput, batched: bool, seconds: float) -> Call:
        """The call of an answer, with what its reading made of it."""
        outcome, detail = KEPT, ""
        try:
            reading(ask.read, output.completion, str(output.stop_reason))
        except Rejected as rejected:
            outcome, detail = rejected.reason, rejected.detail
        usage = _usage(output)
        price = self._prices[ask.role]
        dollars = None if usage is None or price is None else price.dollars(usage, batch=batched)
        return self._call(
            ask,
            step,
            outcome=outcome,
            detail=detail,
            text=output.completion,
            stop_reason=str(output.stop_reason),
            usage=usage,
            dollars=dollars,
            seconds=round(seconds, 3),
        )

    def refused(self, ask: Ask[Any], step: Step, error: Exception) -> Call | None:
        """The call of a request that the provider will never answer, or None where the failure may pass."""
        if status_of(error) not in _REFUSED_ITEM:
            return None
        detail = str(error.__cause__ or error)
        nothing: dict[str, Any] = {"text": "", "stop_reason": "unknown", "usage": None, "dollars": None, "seconds": 0.0}
        return self._call(ask, step, outcome="bad_request", detail=detail, **nothing)

    def most(self, ask: Ask[Any], messages: list[ChatMessage]) -> float:
        """Dollars that a call can cost at most. Two characters a token is more tokens than any tokenizer makes of prose."""
        price = self._prices[ask.role]
        if price is None or price.free:
            return 0.0
        prompt = sum(len(message.text) for message in messages) // 2
        usage = Usage(cache_write=prompt, output=ask.max_tokens)
        return price.dollars(usage, batch=bool(self._config.batch))

    def _shared(self, ask: Ask[Any]) -> list[str]:
        return [part for part in (self._spec, ask.prompt.instruction) if part]

    def _call(self, ask: Ask[Any], step: Step, detail: str, **fields: Any) -> Call:
        return Call(
            request=step.request,
            stage=ask.stage,
            item=ask.item,
            attempt=step.attempt,
            model=self._names[ask.role],
            detail=without_keys(detail)[:500],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )


def _message(ask: Ask[Any], attempt: int, reason: str | None) -> str:
    return ask.prompt.message + (asked_again(reason, attempt, ask.prompt.bare) if reason else "")


@lru_cache(maxsize=64)
def _hash(text: str) -> str:
    # Spec and instructions are long and few: each is hashed once and not with every request.
    return sha256_of_text(text)


def _usage(output: ModelOutput) -> Usage | None:
    found = output.usage
    # A count below zero is a provider's mistake: not known, and no reason to lose an answer that was paid for.
    if found is None or min(found.input_tokens, found.output_tokens) < 0:
        return None
    return Usage(
        input=found.input_tokens,
        output=found.output_tokens,
        cache_read=found.input_tokens_cache_read or 0,
        cache_write=found.input_tokens_cache_write or 0,
    )
