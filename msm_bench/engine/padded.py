"""The plain runner, for models whose attention the shared one cannot take over: padded batches and their own cache.

Sliding windows, linear attention and the like come here. A batch starts together and ends when its last row ends;
nothing is shared. Correct, and several times slower on many samples of one prompt.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from msm_bench.engine.rows import Row, Scored, ScoreRequest
from msm_bench.engine.scoring import scored, target_logprobs

logger = logging.getLogger(__name__)


class PaddedRunner:
    """See `rows.Runner`.

    Args:
        model: A causal language model.
        max_rows: At most so many rows at a time.
        chunk: Tokens, padding included, of a batch that is scored, unless one sequence alone has more.
    """

    kind = "padded"

    def __init__(self, model: Any, max_rows: int, chunk: int) -> None:
        self.model = model
        self.max_rows = max_rows
        self.chunk = chunk
        self.device: torch.device = next(model.parameters()).device
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.rows: list[Row] = []
        # transformers renamed its cache argument; the old name still works there but warns.
        names = inspect.signature(model.forward).parameters
        self._cache_name = next(name for name in ("cache", "past_key_values", "cache_params") if name in names)
        self._takes_positions = "position_ids" in names
        self._cache: Any = None
        self._mask: Tensor | None = None
        self._next: Tensor | None = None

    def admit(self, waiting: Sequence[Row]) -> int:
        """See `Runner.admit`."""
        if self.rows or not waiting:
            return 0
        fresh = list(waiting[: self.max_rows])
        tokens, self._mask = self._left_padded([row.context() for row in fresh])
        logits, self._cache = self._forward(tokens, self._mask, None, 1)
        self._next = logits[:, -1]
        for row in fresh:
            row.cached = 0
        self.rows = fresh
        return len(fresh)

    def undisturbed(self, hurry: bool) -> bool:
        """See `Runner.undisturbed`: tokens are always waited for."""
        return False

    def step(self, newest: Tensor | None = None) -> Tensor:
        """See `Runner.step`."""
        if self._next is None:
            assert self._mask is not None
            tokens = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self.device)
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], 1)
            logits, self._cache = self._forward(tokens, self._mask, self._cache, 1)
            return logits[:, -1]
        first, self._next = self._next, None
        return first

    def settle(self, hurry: bool) -> bool:
        """See `Runner.settle`."""
        if not all(row.ended for row in self.rows):
            return False
        self.rows, self._cache, self._mask, self._next = [], None, None, None
        return True

    def withdraw(self) -> list[Row]:
        """See `Runner.withdraw`: here the cache grows with the batch, and running out of memory lowers the rows."""
        return []

    def reset(self, lower: bool) -> bool:
        """See `Runner.reset`."""
        lowered = lower and self.max_rows > 1
        if lowered:
            self.max_rows = max(1, min(self.max_rows, len(self.rows) or self.max_rows) // 2)
            self.chunk = max(1, self.chunk // 2)
            logger.warning("Memory ran out; going on with at most %d rows at a time.", self.max_rows)
        self.rows, self._cache, self._mask, self._next = [], None, None, None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return lowered

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        """See `Runner.score`."""
        whole = [
            (index, which, request.prompt + continuation, len(continuation))
            for index, request in enumerate(requests)
            for which, continuation in enumerate(request.continuations)
        ]
        whole.sort(key=lambda entry: len(entry[2]))
        found: dict[tuple[int, int], Scored] = {}
        while whole:
            count = 1
            while count < min(len(whole), self.max_rows) and (count + 1) * len(whole[count][2]) <= self.chunk:
                count += 1
            batch, whole = whole[:count], whole[count:]
            for (index, which, _, _), result in zip(batch, self._score_batch([x[2:] for x in batch]), strict=True):
                found[index, which] = result
        return [[found[index, which] for which in range(len(request.continuations))] for index, request in enumerate(requests)]

    def _score_batch(self, batch: Sequence[tuple[tuple[int, ...], int]]) -> list[Scored]:
        keep = max(count for _, count in batch) + 1
        tokens, mask = self._left_padded([tokens for tokens, _ in batch])
        logits, _ = self._forward(tokens, mask, None, keep)
        return [
            scored(target_logprobs(logits[row], range(keep - 1 - count, keep - 1), tokens[-count:]))
            for row, (tokens, count) in enumerate(batch)
        ]

    def _left_padded(self, sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Tokens and attention mask, padded on the left so that all sequences end in the same column."""
        longest = max(len(tokens) for tokens in sequences)
        tokens = torch.tensor([[0] * (longest - len(tokens)) + list(tokens) for tokens in sequences])
        real = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in sequences])
        return tokens.to(self.device), real.to(self.device)

    @torch.inference_mode()
    def _forward(self, tokens: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Any]:
        """Logits [R, keep, V] at the last of the new tokens [R, n], and the cache that now includes them."""
        extra: dict[str, Any] = {self._cache_name: cache}
        if self._takes_positions:
            extra["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        output = self.model(input_ids=tokens, attention_mask=mask, use_cache=True, logits_to_keep=keep, **extra)
        return output.logits, getattr(output, self._cache_name)
