"""Laying out continuations of a prompt so that one pass scores all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from msm_bench.engine.prefix import Node
from msm_bench.engine.rows import Scored, ScoreRequest

_LOGIT_BYTES = {"cuda": 2**31, "cpu": 2**28}
_ROWS_AT_ONCE = {"cuda": 256}
_ROWS_ELSEWHERE = 16
"""Rows of logits that are summed up together: on a CPU as many as stay in its cache."""


@dataclass(eq=False)
class Item:
    """The end of a prompt, below its shared prefix, with continuations that each follow it: a small tree.

    Attributes:
        node: The shared prefix.
        tokens: The prompt's tail, then all but the last token of each continuation.
        parents: Index of the token before each token, -1 for the first.
        positions: Position of each token in its sequence.
        targets: (index of the token after which it stands, token, (request, continuation)) for each scored token.
    """

    node: Node
    tokens: list[int]
    parents: list[int]
    positions: list[int]
    targets: list[tuple[int, int, tuple[int, int]]] = field(default_factory=list)

    def append(self, tail: int, continuation: Sequence[int], owner: tuple[int, int]) -> None:
        """Hang a continuation below the first `tail` tokens."""
        before = tail - 1
        for token in continuation[:-1]:
            self.targets.append((before, token, owner))
            self.tokens.append(token)
            self.parents.append(before)
            self.positions.append(self.positions[before] + 1)
            before = len(self.tokens) - 1
        self.targets.append((before, continuation[-1], owner))


def cut_items(index: int, request: ScoreRequest, node: Node, limit: int) -> list[Item]:
    """A request's continuations in items of at most `limit` tokens where possible.

    Args:
        index: The request's number, for the owners of the targets.
        request: What is to be scored.
        node: The prefix of its prompt that is computed, all but the last token at most.
        limit: Tokens of an item.
    """
    tail = request.prompt[node.end :]
    items: list[Item] = []
    for which, continuation in enumerate(request.continuations):
        if not items or len(items[-1].tokens) + len(continuation) - 1 > limit:
            positions = list(range(node.end, node.end + len(tail)))
            items.append(Item(node, list(tail), list(range(-1, len(tail) - 1)), positions))
        items[-1].append(len(tail), continuation, (index, which))
    return items


def logit_rows(vocabulary: int, device: torch.device) -> int:
    """How many positions' logits may be made at once."""
    return max(128, _LOGIT_BYTES.get(device.type, 2**28) // (4 * vocabulary))


def target_logprobs(logits: Tensor, rows: Sequence[int], targets: Sequence[int]) -> list[float]:
    """Log-probability of `targets[i]` under `logits[rows[i]]`; logits [n, V], the softmax in float32."""
    together = _ROWS_AT_ONCE.get(logits.device.type, _ROWS_ELSEWHERE)
    norms = torch.cat([piece.float().logsumexp(-1) for piece in torch.split(logits, together)])
    row = torch.tensor(rows, device=logits.device)
    chosen = logits[row, torch.tensor(targets, device=logits.device)].float()
    values: list[float] = (chosen - norms[row]).tolist()
    return values


def scored(token_logprobs: Sequence[float]) -> Scored:
    """The result for one continuation."""
    return Scored(sum(token_logprobs), len(token_logprobs), tuple(token_logprobs))
