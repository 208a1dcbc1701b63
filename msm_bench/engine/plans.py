"""What the tokens see in the engine's three kinds of forward pass: computing prefixes, decoding, scoring.

Letters in shapes as in `attention`; R is rows that decode together, S the capacity of their own keys and values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from msm_bench.engine.attention import KeyValues, Level, Span, partial_attention, widen_heads
from msm_bench.engine.prefix import Node


@dataclass(frozen=True)
class LayerShape:
    """What one token leaves behind in one layer."""

    kv_heads: int
    key_width: int
    value_width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes(self) -> int:
        """Size of one token's key and value."""
        return self.kv_heads * (self.key_width + self.value_width) * self.dtype.itemsize


class NodeHead:
    """The first tokens of a node, for a chunk that continues it."""

    def __init__(self, node: Node, length: int) -> None:
        self.node = node
        self.length = length

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, each [K, L, D]."""
        k, v = self.node.layer(layer)
        return k[:, : self.length], v[:, : self.length]


def levels_of(chains: Sequence[Sequence[KeyValues]], widths: Sequence[int], device: torch.device) -> list[Level]:
    """The shared levels of sequences that lie one after another.

    Args:
        chains: What each sequence sees in full, first to last.
        widths: How many tokens of the pass belong to each sequence.
        device: Where the order of the tokens is put.
    """
    starts = [0, *accumulate(widths)]
    levels = []
    for depth in range(max((len(chain) for chain in chains), default=0)):
        members: dict[int, list[int]] = {}
        for index, chain in enumerate(chains):
            if depth < len(chain):
                members.setdefault(id(chain[depth]), []).append(index)
        spans: list[Span] = []
        order: list[int] = []
        for indices in members.values():
            begin = len(order)
            for index in indices:
                order.extend(range(starts[index], starts[index] + widths[index]))
            spans.append(Span(chains[indices[0]][depth], begin, len(order)))
        in_order = order == list(range(starts[-1]))
        levels.append(Level(spans, None if in_order else torch.tensor(order, device=device)))
    return levels


class PrefixPlan:
    """Computes chunks of nodes: chunk `start` to `end` of each node, all nodes before it being done."""

    def __init__(self, chunks: Sequence[tuple[Node, int, int]], shapes: Sequence[LayerShape]) -> None:
        self.chunks = chunks
        chains: list[list[KeyValues]] = []
        for node, start, _ in chunks:
            chain: list[KeyValues] = list(node.chain()[:-1])
            chains.append([*chain, NodeHead(node, start)] if start else chain)
            if not node.keys:
                node.keys = [_empty(shape, len(node.tokens), shape.key_width) for shape in shapes]
                node.values = [_empty(shape, len(node.tokens), shape.value_width) for shape in shapes]
        widths = [end - start for _, start, end in chunks]
        self.levels = levels_of(chains, widths, shapes[0].device)

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`."""
        outs, lses, begin = [], [], 0
        for node, start, end in self.chunks:
            piece = slice(begin, begin + end - start)
            begin = piece.stop
            own_q, own_k, own_v = (x[piece].transpose(0, 1) for x in (q, k, v))
            keys, values = node.layer(layer)
            keys[:, start:end], values[:, start:end] = own_k, own_v
            heads = q.shape[1]
            out, lse = partial_attention(
                own_q[None], widen_heads(own_k[None], heads), widen_heads(own_v[None], heads), scale, causal=True
            )
            outs.append(out[0].transpose(0, 1))
            lses.append(lse[0].transpose(0, 1))
        return torch.cat(outs).float(), torch.cat(lses).float()


def _empty(shape: LayerShape, length: int, width: int) -> Tensor:
    return torch.empty(shape.kv_heads, length, width, dtype=shape.dtype, device=shape.device)


class Suffixes:
    """Keys and values of what each decoding row generated, one slot a row; allocated ahead of need.

    Growing copies, but by half of the size each time, so that a token is copied a bounded number of times.

    Args:
        shapes: Of the layers.
        steady: Stay in place when rows leave, unless most do: captured graphs know the place.
    """

    def __init__(self, shapes: Sequence[LayerShape], steady: bool = False) -> None:
        self.shapes = shapes
        self.steady = steady
        self.rows = 0
        self.length = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def bytes(self, rows: int | None = None, length: int | None = None) -> int:
        """Size in memory, or the size that `rows` of `length` would have."""
        tokens = (self.rows if rows is None else rows) * (self.length if length is None else length)
        return tokens * sum(shape.bytes for shape in self.shapes)

    def wanted(self, rows: int, length: int) -> tuple[int, int]:
        """The capacity that holding `rows` of `length` would lead to."""
        if rows > self.rows:
            rows = max(rows, min(2 * self.rows, self.rows + 16))
        if length > self.length:
            length = max(length, 64, self.length * 3 // 2)
        return max(rows, self.rows), max(length, self.length)

    def reserve(self, rows: int, length: int) -> None:
        """Make room for `rows` of `length` tokens each; what is there stays."""
        new_rows, new_length = self.wanted(rows, length)
        if (new_rows, new_length) != (self.rows, self.length):
            self._resize(slice(0, self.rows), new_rows, new_length)

    def keep(self, indices: list[int], length: int) -> None:
        """Keep only these rows, in this order, with room for `length` tokens; all memory is given back for none."""
        if not indices:
            self.keys, self.values, self.rows, self.length = [], [], 0, 0
            return
        kept = torch.tensor(indices, device=self.shapes[0].device)
        if self.steady and len(indices) * 4 > self.rows:
            for tensor in (*self.keys, *self.values):
                tensor[: len(indices)] = tensor[kept.to(tensor.device)]
        else:
            self._resize(kept, len(indices), max(length, 64))

    def _resize(self, kept: slice | Tensor, rows: int, length: int) -> None:
        stay = min(length, self.length)
        for side, width_name in ((self.keys, "key_width"), (self.values, "value_width")):
            for layer, shape in enumerate(self.shapes):
                width = getattr(shape, width_name)
                # Zeros, because slots that are hidden still enter the products, and 0 times NaN is NaN.
                new = torch.zeros(rows, shape.kv_heads, length, width, dtype=shape.dtype, device=shape.device)
                if layer < len(side):
                    index = kept if isinstance(kept, slice) else kept.to(shape.device)
                    old = side[layer][index]
                    new[: old.shape[0], :, :stay] = old[:, :, :stay]
                    side[layer] = new
                else:
                    side.append(new)
        self.rows, self.length = rows, length

    def fill(self, row: int, node: Node) -> None:
        """Copy a node's keys and values to the beginning of a row."""
        for layer in range(len(self.shapes)):
            k, v = node.layer(layer)
            self.keys[layer][row, :, : k.shape[1]] = k
            self.values[layer][row, :, : v.shape[1]] = v


class DecodePlan:
    """One new token for each of the first rows of `suffixes`, which hold `lengths` tokens so far."""

    def __init__(self, suffixes: Suffixes, lengths: Sequence[int], levels: list[Level]) -> None:
        self.suffixes = suffixes
        self.levels = levels
        device = suffixes.shapes[0].device
        self.at = torch.tensor(lengths, device=device)
        self.row = torch.arange(len(lengths), device=device)
        self.buckets = [self._bucket(start, end, lengths) for start, end in _cut_by_length(lengths)]

    def _bucket(self, start: int, end: int, lengths: Sequence[int]) -> tuple[int, int, int, Tensor | None]:
        """Rows `start` to `end`, how many slots they look at, and what hides slots that a row has not filled."""
        seen = max(lengths[start:end]) + 1
        if min(lengths[start:end]) + 1 == seen:
            return start, end, seen, None
        shape = self.suffixes.shapes[0]
        hidden = torch.arange(seen, device=shape.device)[None] > self.at[start:end, None]
        mask = torch.zeros(hidden.shape, dtype=shape.dtype, device=shape.device)
        mask.masked_fill_(hidden, torch.finfo(shape.dtype).min)
        return start, end, seen, mask[:, None, None]

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`."""
        keys, values = self.suffixes.keys[layer], self.suffixes.values[layer]
        row, at = self.row.to(keys.device), self.at.to(keys.device)
        keys[row, :, at] = k
        values[row, :, at] = v
        grouped = q.view(q.shape[0], k.shape[1], -1, q.shape[2])
        outs, lses = [], []
        for start, end, seen, mask in self.buckets:
            out, lse = partial_attention(
                grouped[start:end],
                keys[start:end, :, :seen],
                values[start:end, :, :seen],
                scale,
                mask=None if mask is None else mask.to(keys.device),
            )
            outs.append(out.flatten(1, 2))
            lses.append(lse.flatten(1, 2))
        return torch.cat(outs).float(), torch.cat(lses).float()


def _cut_by_length(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbours of which none is shorter than half of the longest, unless all are short."""
    cuts, start = [], 0
    shortest = longest = lengths[0]
    for index, length in enumerate(lengths):
        shortest, longest = min(shortest, length), max(longest, length)
        if longest > 64 and shortest < longest // 2:
            cuts.append((start, index))
            start, shortest, longest = index, length, length
    return [*cuts, (start, len(lengths))]


class ScorePlan:
    """Sequences of new tokens that see only themselves, by their own masks, and their shared levels; keeps nothing.

    Args:
        parents: For each sequence, the index within it of the token before each token, -1 for its first ones.
        levels: What the sequences share.
        shapes: Of the layers.
    """

    def __init__(self, parents: Sequence[Sequence[int]], levels: list[Level], shape: LayerShape) -> None:
        self.levels = levels
        longest = max(len(parent) for parent in parents)
        sees = np.zeros((len(parents), longest, longest), dtype=bool)
        place = np.zeros((len(parents), longest), dtype=np.int64)
        begin = 0
        for own, at, parent in zip(sees, place, parents, strict=True):
            for token, before in enumerate(parent):
                if before >= 0:
                    own[token] = own[before]
                own[token, token] = True
            at[: len(parent)] = np.arange(begin, begin + len(parent))
            begin += len(parent)
        filled = sees.any(-1)
        hidden = torch.from_numpy(~sees)
        mask = torch.zeros(hidden.shape, dtype=shape.dtype).masked_fill_(hidden, torch.finfo(shape.dtype).min)
        self.mask = mask[:, None].to(shape.device)
        self.place = torch.from_numpy(place).to(shape.device)
        self.flat = torch.from_numpy(filled.reshape(-1).nonzero()[0]).to(shape.device)

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`."""
        place, flat, mask = (x.to(q.device) for x in (self.place, self.flat, self.mask))
        heads = q.shape[1]
        wide_q, wide_k, wide_v = (x[place].transpose(1, 2) for x in (q, k, v))
        out, lse = partial_attention(wide_q, widen_heads(wide_k, heads), widen_heads(wide_v, heads), scale, mask=mask)
        return (
            out.transpose(1, 2).flatten(0, 1)[flat].float(),
            lse.transpose(1, 2).flatten(0, 1)[flat].float(),
        )
