"""Attention in which many query tokens share the keys and values of one prefix.

Softmax attention over a set of keys can be computed piece by piece: each piece gives its output and the
log-sum-exp of its scores, and two pieces join exactly with weights exp(lse - joint lse). So the keys and values of
a prefix are kept once, all tokens below it are scored against them in one product, and the result is joined with
what each token sees of its own sequence.

The model is called without a cache and with all new tokens of all sequences in one row, shape [1, T]: everything
but attention works token by token. The function registered here with transformers then finds in the active
`Plan` which token sees what. Letters in shapes: T tokens, H query heads, K key/value heads, G = H / K, D width of
a head, L keys.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

ATTENTION_NAME = "msm_shared"

# What some models hand to their attention and this one would have to heed.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")

_active = threading.local()


class KeyValues(Protocol):
    """Stored keys and values that every token of a span sees in full."""

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values, each [K, L, D]."""


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `end` of a level's order, all of which see `kv`."""

    kv: KeyValues
    start: int
    end: int


@dataclass(frozen=True)
class Level:
    """Spans that share no token, so that one join serves them all.

    `order` lists the tokens in span order, None when that is tokens 0 to T - 1.
    """

    spans: list[Span]
    order: Tensor | None

    @cached_property
    def lengths(self) -> tuple[list[int], list[int]]:
        """How many tokens and how many keys each span has."""
        return [span.end - span.start for span in self.spans], [span.kv.layer(0)[0].shape[1] for span in self.spans]

    @cached_property
    def borders(self) -> tuple[Tensor, Tensor]:
        """Where the tokens and the keys of each span begin, and where the last ones end, for kernels that ask."""
        device = self.spans[0].kv.layer(0)[0].device
        both = [torch.tensor([0, *accumulate(part)], dtype=torch.int32, device=device) for part in self.lengths]
        return both[0], both[1]


class Plan(Protocol):
    """What the tokens of one forward pass see."""

    levels: list[Level]

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Attention of the tokens to their own sequence below the shared levels; stores their keys and values.

        Args:
            layer: Index of the layer.
            q: [T, H, D].
            k: [T, K, D].
            v: [T, K, D].
            scale: Factor of the scores.

        Returns:
            Output [T, H, D] and log-sum-exp [T, H], both float32.
        """


@contextmanager
def active(plan: Plan) -> Iterator[None]:
    """Make `plan` the one that this thread's forward pass follows."""
    _active.plan = plan
    try:
        yield
    finally:
        _active.plan = None


def partial_attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention over one piece of the keys.

    Args:
        q: [B, H, Lq, D].
        k: [B, H, Lk, D].
        v: [B, H, Lk, D].
        scale: Factor of the scores.
        causal: Query i sees keys 0 to i (then Lq = Lk).
        mask: Added to the scores, broadcastable to [B, H, Lq, Lk]. Not together with `causal`.

    Returns:
        Output [B, H, Lq, D] in the dtype of `q` and log-sum-exp [B, H, Lq] in float32.
    """
    same_width = q.shape[-1] == v.shape[-1]
    if q.device.type == "cpu" and same_width:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=mask, scale=scale)
        return out, lse
    if mask is None and same_width and _flash_runs(q):
        found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return found[0], found[1]
    scores = torch.matmul(q, k.transpose(-1, -2)).float() * scale
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(ahead, torch.finfo(scores.dtype).min)
    if mask is not None:
        scores = scores + mask
    lse = torch.logsumexp(scores, -1)
    return torch.matmul(torch.exp(scores - lse[..., None]).to(v.dtype), v), lse


def _flash_runs(q: Tensor) -> bool:
    """Whether torch's own flash attention takes such queries: on CUDA, in half precision."""
    return q.is_cuda and q.element_size() == 2 and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256


def fold_groups(q: Tensor, kv_heads: int) -> Tensor:
    """[n, H, D] -> [1, K, n * G, D]: the query heads of one key head become rows beside each other."""
    n, heads, width = q.shape
    return q.view(n, kv_heads, heads // kv_heads, width).transpose(0, 1).reshape(1, kv_heads, -1, width)


def unfold_groups(x: Tensor, n: int) -> Tensor:
    """[1, K, n * G, ...] -> [n, H, ...], the inverse of `fold_groups`."""
    kv_heads, rest = x.shape[1], x.shape[3:]
    return x.view(kv_heads, n, -1, *rest).transpose(0, 1).reshape(n, -1, *rest)


def widen_heads(kv: Tensor, heads: int) -> Tensor:
    """[B, K, L, D] -> [B, H, L, D], each key head repeated for its query heads."""
    return kv if kv.shape[1] == heads else kv.repeat_interleave(heads // kv.shape[1], dim=1)


def _attend_level(level: Level, layer: int, q: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output [T, H, D] and log-sum-exp [T, H] of one level; -inf where a token sees nothing of it."""
    ordered = q if level.order is None else q.index_select(0, level.order.to(q.device))
    several = len(level.spans) > 1
    out, lse = (_spans_at_once if several and _flash_runs(q) else _spans_in_turn)(level, layer, ordered, scale)
    if level.order is None:
        return out, lse
    order = level.order.to(q.device)
    all_out = out.new_zeros(q.shape[0], *out.shape[1:]).index_copy_(0, order, out)
    all_lse = lse.new_full((q.shape[0], lse.shape[1]), -torch.inf).index_copy_(0, order, lse)
    return all_out, all_lse


def _spans_in_turn(level: Level, layer: int, q: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`_attend_level` for tokens in span order."""
    outs, lses = [], []
    for span in level.spans:
        k, v = span.kv.layer(layer)
        piece = fold_groups(q[span.start : span.end], k.shape[0])
        out, lse = partial_attention(piece, k[None], v[None], scale)
        outs.append(unfold_groups(out, span.end - span.start))
        lses.append(unfold_groups(lse, span.end - span.start))
    return torch.cat(outs).float(), torch.cat(lses).float()


def _spans_at_once(level: Level, layer: int, q: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The same in one kernel: a GPU spends more time on starting many small ones than on copying all keys together."""
    kvs = [span.kv.layer(layer) for span in level.spans]
    k, v = (torch.cat(side, dim=1).transpose(0, 1) for side in zip(*kvs, strict=True))
    (n, heads, width), kv_heads = q.shape, k.shape[1]
    group = heads // kv_heads
    folded = q.view(n, kv_heads, group, width).transpose(1, 2).reshape(n * group, kv_heads, width)
    tokens, keys = level.lengths
    token_borders, key_borders = (borders.to(q.device) for borders in level.borders)
    found = torch.ops.aten._flash_attention_forward(
        folded, k, v, token_borders * group, key_borders, max(tokens) * group, max(keys), 0.0, False, False, scale=scale
    )
    out = found[0].view(n, group, kv_heads, width).transpose(1, 2).reshape(n, heads, width)
    lse = found[1].transpose(0, 1).view(n, group, kv_heads).transpose(1, 2).reshape(n, heads)
    return out.float(), lse.float()


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface: query [1, H, T, D], key and value [1, K, T, D]."""
    unknown = [name for name in _UNSUPPORTED if kwargs.get(name) is not None]
    if unknown or attention_mask is not None:
        raise ValueError(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    plan: Plan = _active.plan
    layer: int = module.layer_idx  # type: ignore[assignment]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    whole = getattr(plan, "whole", None)
    if whole is not None:
        found: Tensor = whole(layer, q, k, v, scale)
        return found[None], None
    q = q.contiguous()
    out, lse = plan.local(layer, q, k, v, scale)
    for level in plan.levels:
        more_out, more_lse = _attend_level(level, layer, q, scale)
        joint = torch.logaddexp(lse, more_lse)
        out = out * torch.exp(lse - joint)[..., None] + more_out * torch.exp(more_lse - joint)[..., None]
        lse = joint
    return out.to(query.dtype)[None], None


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
