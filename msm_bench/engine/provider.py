"""The `msm/` model provider: checkpoints, local folders and hub models, sampled in this process.

`--model msm/NAME` takes every name that `msm_bench.checkpoints.resolve` knows; the -M arguments are in `settings`.
Sampling follows Inspect's configuration alone. What is not set there has fixed defaults (temperature 1, top_p 1, no
top_k, no repetition penalty) whatever the model's generation_config.json says, and every output's metadata holds
the effective values.

With `seed` set, a sample depends on the seed, the prompt's tokens, the id and epoch of Inspect's sample, and which
request of that sample with this prompt it is (a sample that asks twice gets two answers). Outside a running sample
the last of these counts the requests of this provider object. It does not depend on what else runs at the time,
except for the last bits of the logits, see `sampling`.
"""

import asyncio
from collections import Counter
from concurrent.futures import Future
from logging import getLogger
from typing import Any, TypeVar

import anyio
import sniffio
from inspect_ai._util.logger import warn_once
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageUser,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from msm_bench.checkpoints import resolve
from msm_bench.engine.engine import Engine, acquire, release
from msm_bench.engine.messages import Chat, Prompt, assistant_message, split_reasoning
from msm_bench.engine.rows import Generation
from msm_bench.engine.sampling import Sampling, noise_key
from msm_bench.engine.settings import parse_args
from msm_bench.errors import RequestError

logger = getLogger(__name__)

_MAX_TOKENS = 2048
_MAX_CONNECTIONS = 256
_IGNORED = ("best_of", "prompt_logprobs", "response_schema", "reasoning_tokens", "reasoning_effort")

T = TypeVar("T")


class MsmAPI(ModelAPI):
    """A model of this suite. See the module's text for what it does with sampling parameters and seeds.

    Attributes:
        identity: Which weights these are: source, hash or revision, of the adapter and its base.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        config = GenerateConfig() if config is None else config
        super().__init__(model_name, base_url, api_key, [], config)
        self._args = parse_args(model_args)
        if config.adaptive_connections is None and config.max_connections is None:
            # Inspect would feel its way up from 20 connections, which suits a remote service; this engine does best
            # with everything at once. This object is also the model's, so that Inspect reads the change there.
            config.adaptive_connections = False
        self._resolved = resolve(model_name, self._args.revision)
        self._asked: Counter[tuple[object, ...]] = Counter()
        self._engine: Engine | None = acquire(self._resolved, self._args.settings)
        loaded = self._engine.loaded
        self.identity = dict(loaded.identity)
        self.chat = Chat(loaded.tokenizer, self._args.chat_template, self._args.enable_thinking, model_name)
        self._ends = self.chat.turn_end()

    @property
    def engine(self) -> Engine:
        """The loaded model; loaded again when it was closed."""
        if self._engine is None:
            self._engine = acquire(self._resolved, self._args.settings)
        return self._engine

    @property
    def context_length(self) -> int:
        """Longest sequence of the model, in tokens."""
        return self.engine.context_length

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Sample `num_choices` answers.

        Raises:
            ContextTooShortError: The prompt leaves no room for an answer.
            RequestError: The chat template refuses the messages.
        """
        for name in _IGNORED:
            if getattr(config, name) is not None:
                warn_once(logger, f"msm/ models have no '{name}'; it is ignored.")
        tools = [] if tool_choice == "none" else tools
        prompt = self.chat.prompt(input, tools)
        samplings = [self._sampling(prompt, config, choice) for choice in range(config.num_choices or 1)]
        futures = [self.engine.generate(prompt.ids, sampling) for sampling in samplings]
        try:
            generations = [await finished(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()
        return ModelOutput(
            model=self.model_name,
            choices=[self._choice(generation, prompt, bool(tools)) for generation in generations],
            usage=self._usage(prompt, generations),
            time=max(generation.seconds for generation in generations),
            metadata={
                "identity": self.identity,
                "sampling": effective(samplings[0], config.seed),
                "engine": self.engine.describe(),
            },
        )

    def _sampling(self, prompt: Prompt, config: GenerateConfig, choice: int) -> Sampling:
        room = self.context_length - len(prompt.ids)
        wanted = config.max_tokens or _MAX_TOKENS
        temperature = 1.0 if config.temperature is None else config.temperature
        top_p = 1.0 if config.top_p is None else config.top_p
        if temperature < 0 or not 0 < top_p <= 1:
            raise RequestError(
                f"temperature {temperature} and top_p {top_p} do not make a distribution.",
                "Use a temperature of at least 0 and a top_p above 0 and at most 1.",
            )
        return Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=config.top_k if config.top_k and config.top_k > 0 else None,
            max_tokens=min(wanted, room),
            context_bound=room < wanted,
            stop=tuple(stop for stop in config.stop_seqs or [] if stop),
            frequency_penalty=config.frequency_penalty or 0.0,
            presence_penalty=config.presence_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (config.logit_bias or {}).items()},
            top_logprobs=(config.top_logprobs or 0) if config.logprobs else None,
            ends=self._ends,
            key=noise_key(config.seed, prompt.ids, *self._occasion(config.seed, prompt), choice),
        )

    def _occasion(self, seed: int | None, prompt: Prompt) -> tuple[object, ...]:
        """What tells this request apart from others with the same seed and prompt."""
        active = sample_active()
        which = (None if active is None else active.id, seed, hash(prompt.ids))
        self._asked[which] += 1
        place = ("", 0) if active is None else (str(active.sample.id), active.epoch)
        return (*place, self._asked[which])

    def _choice(self, generation: Generation, prompt: Prompt, tools: bool) -> ChatCompletionChoice:
        message = assistant_message(generation.text, prompt.thinking, tools, self.model_name)
        called = bool(message.tool_calls) and generation.ending == "stop"
        return ChatCompletionChoice(
            message=message,
            stop_reason="tool_calls" if called else generation.ending,
            logprobs=None if generation.logprobs is None else self._logprobs(generation),
        )

    def _logprobs(self, generation: Generation) -> Logprobs:
        return Logprobs(
            content=[
                Logprob(
                    token=self._token(found.token),
                    logprob=found.logprob,
                    top_logprobs=[TopLogprob(token=self._token(token), logprob=value) for token, value in found.top] or None,
                )
                for found in generation.logprobs or []
            ]
        )

    def _token(self, token: int) -> str:
        return str(self.engine.loaded.tokenizer.decode([token]))

    def _usage(self, prompt: Prompt, generations: list[Generation]) -> ModelUsage:
        # One prompt and several choices are several requests here, but the caller sent the prompt once.
        cached = min(generation.cached for generation in generations)
        drawn = sum(len(generation.tokens) for generation in generations)
        reasoning = 0
        for generation in generations:
            thought, _ = split_reasoning(generation.text, prompt.thinking)
            reasoning += len(self.chat.tokens(thought)) if thought else 0
        return ModelUsage(
            input_tokens=len(prompt.ids) - cached,
            input_tokens_cache_read=cached or None,
            output_tokens=drawn,
            total_tokens=len(prompt.ids) + drawn,
            reasoning_tokens=reasoning or None,
        )

    async def count_tokens(self, input: str | list[ChatMessage], config: GenerateConfig | None = None) -> int:
        """Tokens of a conversation as the model would get it, or of a user message with this text."""
        messages: list[ChatMessage] = [ChatMessageUser(content=input)] if isinstance(input, str) else input
        return len(self.chat.prompt(messages).ids)

    async def count_text_tokens(self, text: str) -> int:
        """Tokens of a piece of text."""
        return len(self.chat.tokens(text))

    async def tokenize(self, text: str) -> list[int]:
        """Tokens of a piece of text, nothing added."""
        return self.chat.tokens(text)

    def max_tokens(self) -> int | None:
        """Longest answer when the configuration does not say."""
        return _MAX_TOKENS

    def max_connections(self) -> int:
        """High: the scheduler holds back what memory has no room for, and sees more to share."""
        return _MAX_CONNECTIONS

    def collapse_user_messages(self) -> bool:
        """Yes: many chat templates refuse two user messages in a row."""
        return True

    def connection_key(self) -> str:
        """One pool a model."""
        return self.model_name

    def close(self) -> None:
        """Let the model go; it is loaded again if it is used again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            release(engine)


def effective(sampling: Sampling, seed: int | None) -> dict[str, Any]:
    """The parameters that a request was sampled with, for the log."""
    shown: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "stop_seqs": list(sampling.stop),
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "seed": seed,
    }
    return shown


async def finished(future: "Future[T]") -> T:
    """Wait for the engine without holding up the event loop; being cancelled gives the request up."""
    if sniffio.current_async_library() == "asyncio":
        return await asyncio.wrap_future(future)
    try:
        while not future.done():
            await anyio.sleep(0.01)
    except BaseException:
        future.cancel()
        raise
    return future.result()
