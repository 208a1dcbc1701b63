"""Drawing the next token: temperature, top-k, top-p, penalties, and noise that does not depend on the batch.

Each request has its own stream of uniform numbers, made from a key that the provider derives from the seed and the
request (see `noise_key`), and one number is used per token: the token whose stretch of the cumulative distribution
holds that number. What else is in the batch does not touch the stream. The logits themselves can differ in the last
bits with the batch's shape: in float32 that practically never changes a token, in bfloat16 it can.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

# Sorting a whole vocabulary is slow; the best of this many tokens nearly always hold the whole nucleus.
_NUCLEUS_GUESS = 1024


@dataclass(frozen=True)
class Sampling:
    """How one request is sampled. Nothing is taken from the model's generation_config.json.

    Attributes:
        temperature: 0 means the most likely token.
        top_p: Smallest set of tokens with this much probability; 1 means all.
        top_k: Only so many most likely tokens; None means all.
        max_tokens: At most so many new tokens.
        context_bound: Whether `max_tokens` was cut because the model's context ends there.
        stop: Texts at which generation ends; none of them is part of the output.
        frequency_penalty: Taken off a token's logit for each time it was generated.
        presence_penalty: Taken off a token's logit once it was generated.
        logit_bias: Added to logits, by token.
        top_logprobs: Alternatives to report at each position; None reports no log-probabilities at all.
        ends: Tokens that end the generation besides the model's own.
        key: 16 bytes that determine the noise.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 2048
    context_bound: bool = False
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    ends: frozenset[int] = frozenset()
    key: bytes = b"\0" * 16


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token's log-probability under the model at temperature 1, before any truncation, in nats."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def noise_key(seed: int | None, prompt: Sequence[int], *salts: object) -> bytes:
    """The key of a request's noise.

    Args:
        seed: From the configuration; None gives a new random key each time.
        prompt: Tokens of the prompt.
        salts: What tells equal requests apart: sample, epoch, how manieth such request, which choice.
    """
    if seed is None:
        return os.urandom(16)
    digest = hashlib.sha256(repr((seed, salts)).encode())
    digest.update(np.asarray(prompt, dtype=np.int64).tobytes())
    return digest.digest()[:16]


class Noise:
    """Uniform numbers in [0, 1), determined by a key: a Philox stream, the same on every machine."""

    def __init__(self, key: bytes) -> None:
        self._stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
        self._ahead: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._ahead:
            self._ahead = self._stream.random(256).tolist()[::-1]
        return self._ahead.pop()


def on_device(values: Sequence[float], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers where a tensor is, of its dtype if none is named; a card goes on with its work meanwhile."""
    pinned = like.device.type == "cuda"
    return torch.tensor(values, dtype=dtype or like.dtype, pin_memory=pinned).to(like.device, non_blocking=True)


def next_tokens(
    logits: Tensor, samplings: Sequence[Sampling], noises: Sequence[Noise], counts: Sequence[Counter[int]]
) -> Tensor:
    """Draw one token for each row. Without top_k, top_p and penalties a card is not waited for.

    Args:
        logits: [R, V].
        samplings: One a row.
        noises: One a row; rows with a temperature above 0 use up one number.
        counts: How often each row has generated each token.

    Returns:
        The tokens [R], where the logits are.
    """
    logits = logits.float()
    if any(s.logit_bias or s.frequency_penalty or s.presence_penalty for s in samplings):
        logits = _penalised(logits, samplings, counts)
    greedy = [index for index, s in enumerate(samplings) if s.temperature == 0]
    whole = [index for index, s in enumerate(samplings) if s.temperature > 0 and s.top_p >= 1 and s.top_k is None]
    cut = sorted(set(range(len(samplings))) - set(greedy) - set(whole))
    chosen = torch.zeros(len(samplings), dtype=torch.int64, device=logits.device)
    for indices, draw in ((greedy, _most_likely), (whole, _from_all), (cut, _from_best)):
        if len(indices) == len(samplings):
            return draw(logits, samplings, noises)
        if indices:
            where = on_device(indices, chosen)
            chosen[where] = draw(logits[where], [samplings[index] for index in indices], [noises[index] for index in indices])
    return chosen


def token_logprobs(logits: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogprob]:
    """Log-probabilities of chosen tokens and of the `top` most likely ones at their positions; logits [R, V]."""
    logprobs = torch.log_softmax(logits.float(), -1)
    chosen = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    if top == 0:
        return [TokenLogprob(token, value, ()) for token, value in zip(tokens, chosen, strict=True)]
    values, indices = (x.tolist() for x in logprobs.topk(min(top, logits.shape[-1])))
    return [
        TokenLogprob(token, value, tuple(zip(row_indices, row_values, strict=True)))
        for token, value, row_indices, row_values in zip(tokens, chosen, indices, values, strict=True)
    ]


def _penalised(logits: Tensor, samplings: Sequence[Sampling], counts: Sequence[Counter[int]]) -> Tensor:
    logits = logits.clone()
    for row, (sampling, seen) in enumerate(zip(samplings, counts, strict=True)):
        change = dict(sampling.logit_bias)
        if sampling.frequency_penalty or sampling.presence_penalty:
            for token, times in seen.items():
                penalty = sampling.frequency_penalty * times + sampling.presence_penalty
                change[token] = change.get(token, 0.0) - penalty
        if change:
            where = torch.tensor(list(change), device=logits.device)
            logits[row, where] += torch.tensor(list(change.values()), device=logits.device)
    return logits


def _most_likely(logits: Tensor, samplings: Sequence[Sampling], noises: Sequence[Noise]) -> Tensor:
    return logits.argmax(-1)


def _from_all(logits: Tensor, samplings: Sequence[Sampling], noises: Sequence[Noise]) -> Tensor:
    return _draw(torch.softmax(logits / _temperatures(samplings, logits), -1), noises)


def _from_best(logits: Tensor, samplings: Sequence[Sampling], noises: Sequence[Noise]) -> Tensor:
    scaled = logits / _temperatures(samplings, logits)
    vocabulary = logits.shape[-1]
    most = max(s.top_k if s.top_k is not None else _NUCLEUS_GUESS for s in samplings)
    total = torch.logsumexp(scaled, -1, keepdim=True)
    while True:
        values, indices = scaled.topk(min(most, vocabulary))
        probabilities = torch.exp(values - total)
        missing = 1 - probabilities.sum(-1)
        unsure = any(s.top_k is None and s.top_p > 1 - short for s, short in zip(samplings, missing.tolist(), strict=True))
        if not unsure or values.shape[-1] == vocabulary:
            break
        most = vocabulary
    ranks = torch.arange(values.shape[-1], device=logits.device)
    top_k = torch.tensor([s.top_k or vocabulary for s in samplings], device=logits.device)[:, None]
    probabilities = probabilities.masked_fill(ranks >= top_k, 0)
    # top_p then counts in shares of what top_k left; without top_k, in shares of everything.
    left = probabilities.sum(-1, keepdim=True)
    probabilities = probabilities / torch.where(top_k < vocabulary, left, torch.ones_like(left))
    top_p = torch.tensor([s.top_p for s in samplings], device=logits.device)[:, None]
    # A token stays when what stands before it has not yet reached top_p; so the first one always stays.
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p, 0)
    picked = _draw(probabilities, noises)
    return indices.gather(1, picked[:, None])[:, 0]


def _temperatures(samplings: Sequence[Sampling], logits: Tensor) -> Tensor:
    return on_device([s.temperature for s in samplings], logits)[:, None]


def _draw(weights: Tensor, noises: Sequence[Noise]) -> Tensor:
    """One index a row with probability in proportion to its weight; never one of weight 0."""
    cumulative = weights.cumsum(-1)
    uniform = on_device([noise.next() for noise in noises], weights)
    total = cumulative[:, -1]
    # Rounding could bring the product up to the total, above which there is no token.
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
