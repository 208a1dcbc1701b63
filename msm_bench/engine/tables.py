"""Which rows see which pieces of which prefixes, as arrays in the card's memory for `kernels`.

A captured graph reads these arrays wherever they lie, so they keep their places and sizes (padded) while their contents
change with the rows. A piece is at most `PIECE_KEYS` keys of one node, seen by at most `piece_tokens` rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msm_bench.engine.plans import LayerShape, Suffixes
from msm_bench.engine.prefix import Node


def padded(count: int, step: int) -> int:
    """The next multiple of `step`, at least one."""
    return max(1, -(-count // step)) * step


@dataclass(frozen=True)
class Size:
    """What a graph is captured for: rows, pieces of prefixes, pieces that one row sees, chunks of the longest suffix."""

    rows: int
    pieces: int
    depth: int
    chunks: int


@dataclass(frozen=True)
class LayerTables:
    """One layer's part: its suffixes, addresses of its pieces, and what all layers have in common."""

    keys: Tensor
    values: Tensor
    piece_keys: Tensor
    piece_values: Tensor
    tables: "Tables"


class Tables:
    """The arrays of one size.

    Args:
        size: How much they hold.
        shape: Of the layers, which must be alike.
        layers: How many.
        heads: Query heads.
        served: Tokens that a piece serves.
        lengths: [R], tokens that each row's own keys and values hold before the step.
    """

    def __init__(self, size: Size, shape: LayerShape, layers: int, heads: int, served: int, lengths: Tensor) -> None:
        self.size = size
        self.lengths = lengths
        self.served = served
        device, width = shape.device, shape.key_width
        self.shape = torch.zeros(size.pieces, 2, dtype=torch.int32, device=device)
        self.tokens = torch.full((size.pieces, served), -1, dtype=torch.int32, device=device)
        self.slots = torch.full((size.rows, size.depth), -1, dtype=torch.int32, device=device)
        self.piece_keys = torch.zeros(layers, size.pieces, dtype=torch.int64, device=device)
        self.piece_values = torch.zeros(layers, size.pieces, dtype=torch.int64, device=device)
        self.piece_out = torch.empty(size.pieces * served, heads, width, dtype=torch.float32, device=device)
        self.piece_lse = torch.empty(size.pieces * served, heads, dtype=torch.float32, device=device)
        self.own_out = torch.empty(size.rows, size.chunks, heads, width, dtype=torch.float32, device=device)
        self.own_lse = torch.empty(size.rows, size.chunks, heads, dtype=torch.float32, device=device)

    def layer(self, layer: int, suffixes: Suffixes) -> LayerTables:
        """The part of one layer."""
        keys, values = suffixes.keys[layer], suffixes.values[layer]
        return LayerTables(keys, values, self.piece_keys[layer], self.piece_values[layer], self)

    def fill(self, layout: "Layout") -> None:
        """Take over which rows see what."""
        for target, source, empty in (
            (self.shape, layout.shape, 0),
            (self.tokens, layout.tokens, -1),
            (self.slots, layout.slots, -1),
        ):
            whole = torch.full(target.shape, empty, dtype=torch.int32)
            if source:
                whole[: len(source), : max(len(line) for line in source)] = _even(source, empty)
            target.copy_(whole)
        for target, addresses in ((self.piece_keys, layout.key_addresses), (self.piece_values, layout.value_addresses)):
            whole = torch.zeros(target.shape, dtype=torch.int64)
            if layout.shape:
                whole[:, : len(layout.shape)] = torch.tensor(addresses, dtype=torch.int64)
            target.copy_(whole)


def _even(lines: list[list[int]], empty: int) -> Tensor:
    longest = max(len(line) for line in lines)
    return torch.tensor([line + [empty] * (longest - len(line)) for line in lines], dtype=torch.int32)


class Layout:
    """The pieces of some rows' prefixes.

    Args:
        chains: The nodes that each row stands on, first to last.
        layers: How many layers a node holds.
        served: Tokens that a piece serves.
        piece_keys: Keys of a piece.
    """

    def __init__(self, chains: Sequence[Sequence[Node]], layers: int, served: int, piece_keys: int) -> None:
        self.shape: list[list[int]] = []
        self.tokens: list[list[int]] = []
        self.slots: list[list[int]] = [[] for _ in chains]
        self.key_addresses: list[list[int]] = [[] for _ in range(layers)]
        self.value_addresses: list[list[int]] = [[] for _ in range(layers)]
        # The addresses in the tables are good only as long as these live.
        self.nodes: dict[int, Node] = {}
        below: dict[int, list[int]] = {}
        for row, chain in enumerate(chains):
            for node in chain:
                self.nodes[id(node)] = node
                below.setdefault(id(node), []).append(row)
        for key, rows in below.items():
            for start in range(0, len(rows), served):
                self._add(self.nodes[key], rows[start : start + served], served, piece_keys)

    def _add(self, node: Node, rows: list[int], served: int, piece_keys: int) -> None:
        length = len(node.tokens)
        for begin in range(0, length, piece_keys):
            piece = len(self.shape)
            self.shape.append([min(piece_keys, length - begin), node.keys[0].stride(0)])
            self.tokens.append(rows)
            for place, row in enumerate(rows):
                self.slots[row].append(piece * served + place)
            for layer, (k, v) in enumerate(zip(node.keys, node.values, strict=True)):
                self.key_addresses[layer].append(k.data_ptr() + begin * k.stride(1) * k.element_size())
                self.value_addresses[layer].append(v.data_ptr() + begin * v.stride(1) * v.element_size())

    @property
    def depth(self) -> int:
        """Most pieces that one row sees."""
        return max((len(slots) for slots in self.slots), default=0)
