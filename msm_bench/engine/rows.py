"""What the scheduler and its runners hand to each other."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from msm_bench.engine.prefix import Node
from msm_bench.engine.sampling import Noise, Sampling, TokenLogprob

Ending = Literal["stop", "max_tokens", "model_length"]


@dataclass(frozen=True)
class Generation:
    """One finished sample.

    Attributes:
        tokens: What was drawn, the token that ended it included.
        text: The tokens as text, cut before a stop text and without the token that ended it.
        ending: Why it ended.
        cached: Prompt tokens whose keys and values were there already.
        logprobs: Of all drawn tokens, if asked for.
        seconds: From being asked for to being finished.
    """

    tokens: tuple[int, ...]
    text: str
    ending: Ending
    cached: int
    logprobs: list[TokenLogprob] | None
    seconds: float


@dataclass(frozen=True)
class Scored:
    """Log-probability of one continuation, in nats.

    Attributes:
        logprob_sum: Sum over its tokens.
        n_tokens: How many tokens it has.
        token_logprobs: One a token.
    """

    logprob_sum: float
    n_tokens: int
    token_logprobs: tuple[float, ...]


@dataclass(eq=False)
class Row:
    """A sample on its way.

    Attributes:
        node: The shared prefix it stands on, and `length`, how many tokens its own keys and values hold: set by
            the runner that shares prefixes.
        ended: It needs no more tokens; its place is freed when that is worth the copying.
        adapter: Number of its adapter, 0 for none.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    future: "Future[Generation]"
    arrived: float = field(default_factory=time.monotonic)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    cached: int | None = None
    ended: bool = False
    node: Node | None = None
    length: int = 0
    adapter: int = 0

    def __post_init__(self) -> None:
        self.noise = Noise(self.sampling.key)

    def context(self) -> tuple[int, ...]:
        """All tokens so far."""
        return self.prompt + tuple(self.tokens)


@dataclass(eq=False)
class ScoreRequest:
    """Continuations of one prompt whose log-probabilities are asked for."""

    prompt: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    future: "Future[list[Scored]]"
    adapter: int = 0


class Runner(Protocol):
    """Owns the model's forward passes. All calls come from the scheduler's thread.

    Attributes:
        device: Where the model's first weights are.
        kind: "shared" or "padded", for the log.
        vocabulary: How many tokens the model's logits cover.
        rows: The rows that decode together, ended ones included until they are settled.
    """

    device: torch.device
    kind: str
    vocabulary: int
    rows: list[Row]

    def admit(self, waiting: Sequence[Row]) -> int:
        """Take the first so many of `waiting` as there is room for, and compute their prompts."""

    def step(self, newest: Tensor | None = None) -> Tensor:
        """One forward pass of all rows: the logits [R, V] of each row's next token.

        Args:
            newest: Each row's last token [R], where the rows do not know it yet; given only when `undisturbed`.
        """

    def undisturbed(self, hurry: bool) -> bool:
        """Whether a step may begin before the last tokens are known, `settle(hurry)` and `withdraw` having nothing to do."""

    def settle(self, hurry: bool) -> bool:
        """Free the places of ended rows when worth the copying, `hurry` when others wait; whether any were freed."""

    def withdraw(self) -> list[Row]:
        """Give up rows for which memory does not suffice; they are to be admitted again later."""

    def reset(self, lower: bool) -> bool:
        """Forget all rows and prefixes, after an error.

        Args:
            lower: Work in smaller pieces from now on, after running out of memory.

        Returns:
            Whether pieces were made smaller; False also when they cannot get any smaller.
        """

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        """Score the first so many requests as fit; one result for each of them."""
