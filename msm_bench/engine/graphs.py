"""Decode steps as captured CUDA graphs: a step of many small kernels that costs no Python.

One graph for each `tables.Size` met, captured when it is first needed (some tenths of a second) and valid as long as the rows'
own keys and values stay where they are. Rows that join and leave change the tables' contents, not the graph.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from msm_bench.engine.adapters import routed
from msm_bench.engine.attention import Level, active
from msm_bench.engine.fusing import fast_rotation
from msm_bench.engine.plans import LayerShape, Suffixes
from msm_bench.engine.prefix import Node
from msm_bench.engine.tables import LayerTables, Layout, Size, Tables, padded

logger = logging.getLogger(__name__)

_ROW_STEP = 16
_PIECE_STEP = 32
_KEPT = 6


def padded_rows(rows: int) -> int:
    """For how many rows a graph is captured that computes `rows`."""
    return padded(rows, _ROW_STEP if rows > 8 else 8)


class TablePlan:
    """See `attention.Plan`: everything that the tokens see stands in tables."""

    def __init__(self, layers: Sequence[LayerTables], kernels: ModuleType) -> None:
        self.levels: list[Level] = []
        self._layers = layers
        self._kernels = kernels

    def whole(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Attention [T, H, D] over prefixes and own suffixes together."""
        found: Tensor = self._kernels.attend(q, k, v, scale, self._layers[layer])
        return found

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`; not used, `whole` does it all."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Captured:
    tables: Tables
    plan: TablePlan
    inputs: Tensor
    graph: Any
    logits: Tensor | None


class GraphDecoder:
    """Decode steps of one model on one card.

    Args:
        model: Set to the shared attention.
        shapes: Of its layers, all alike.
        heads: Query heads.
        kernels: The module `kernels`.
        capture: Use graphs; without, every step starts its kernels one by one.
    """

    def __init__(self, model: Any, shapes: Sequence[LayerShape], heads: int, kernels: ModuleType, capture: bool = True) -> None:
        self._model = model
        self._shapes = shapes
        self._heads = heads
        self._kernels = kernels
        self._capture = capture
        self._served: int = kernels.piece_tokens(heads // shapes[0].kv_heads)
        self._kept: dict[Size, _Captured] = {}
        self._places: tuple[int, ...] = ()
        self._layout: Layout | None = None
        self._filled: Size | None = None
        self._pool: Any = None

    @property
    def knows_rows(self) -> bool:
        """Whether `step` needs no chains, nothing having changed since the last one."""
        return self._layout is not None

    def forget_rows(self) -> None:
        """Rows joined, left or moved, or nodes were cut."""
        self._layout, self._filled = None, None

    def forget_all(self) -> None:
        """Let all memory go."""
        self.forget_rows()
        self._drop_graphs()
        self._places = ()

    def _drop_graphs(self) -> None:
        # With its last graph torch gives up their pool; a capture into it would fail from then on.
        self._kept, self._pool = {}, None

    @torch.inference_mode()
    def step(
        self,
        tokens: Sequence[int] | Tensor,
        positions: list[int],
        lengths: list[int],
        chains: Sequence[Sequence[Node]],
        suffixes: Suffixes,
        adapter: int = 0,
    ) -> Tensor:
        """Logits [R, V] of the next tokens.

        Args:
            tokens: The newest token of each row; a tensor on the card may still be being computed.
            positions: Their positions.
            lengths: How many tokens each row's own keys and values hold before this step.
            chains: The prefixes that each row stands on; looked at only after `forget_rows`.
            suffixes: With room for `padded_rows(R)` rows and one more token.
            adapter: Of all rows.
        """
        places = (suffixes.keys[0].data_ptr(), suffixes.rows, suffixes.length, adapter)
        if places != self._places:
            # What graphs know: where the rows' own keys and values lie, and the adapter.
            self._drop_graphs()
            self._places, self._filled = places, None
        if self._layout is None:
            self._layout = Layout(chains, len(self._shapes), self._served, self._kernels.PIECE_KEYS)
        rows = len(tokens)
        size = self._size(rows, self._layout, suffixes)
        numbers = torch.zeros(3, size.rows, dtype=torch.int64, pin_memory=self._capture)
        numbers[1:, :rows] = torch.tensor([positions, lengths])
        if not isinstance(tokens, Tensor):
            numbers[0, :rows] = torch.tensor(tokens)
        found = self._kept.get(size)
        if found is None:
            # Its first step is done without a graph: the size may not come again, and kernels are compiled on the way.
            found = self._new(size, suffixes, numbers.to(self._shapes[0].device))
            if isinstance(tokens, Tensor):
                found.inputs[0, :rows] = tokens
            return self._forward(found)[:rows]
        if self._filled != size:
            found.tables.fill(self._layout)
            self._filled = size
        found.inputs.copy_(numbers, non_blocking=True)
        if isinstance(tokens, Tensor):
            found.inputs[0, :rows] = tokens
        if not self._capture:
            return self._forward(found)[:rows]
        if found.graph is None:
            found = self._kept[size] = self._captured(found)
        found.graph.replay()
        assert found.logits is not None
        return found.logits[:rows]

    def _size(self, rows: int, layout: Layout, suffixes: Suffixes) -> Size:
        chunks = -(-suffixes.length // self._kernels.SUFFIX_KEYS)
        depth = 8
        while depth < layout.depth:
            depth *= 2
        pieces = len(layout.shape)
        # Pieces that are not there cost nearly nothing, a new size a graph: steps of a third to a half.
        step = max(_PIECE_STEP, 1 << (pieces.bit_length() - 2)) if pieces else _PIECE_STEP
        return Size(padded_rows(rows), padded(pieces, step), depth, chunks)

    def _new(self, size: Size, suffixes: Suffixes, inputs: Tensor) -> _Captured:
        assert self._layout is not None
        if len(self._kept) >= _KEPT:
            self._drop_graphs()
        tables = Tables(size, self._shapes[0], len(self._shapes), self._heads, self._served, inputs[2])
        tables.fill(self._layout)
        self._filled = size
        plan = TablePlan([tables.layer(layer, suffixes) for layer in range(len(self._shapes))], self._kernels)
        self._kept[size] = made = _Captured(tables, plan, inputs, None, None)
        return made

    def _captured(self, bare: _Captured) -> _Captured:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # Another thread may use the card meanwhile, for another model say.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._forward(bare)
        return replace(bare, graph=graph, logits=logits)

    def _forward(self, captured: _Captured) -> Tensor:
        tokens, positions = captured.inputs[0:1], captured.inputs[1:2]
        route = [(self._places[-1], None)] if self._places[-1] else []
        with active(captured.plan), routed(route), fast_rotation(self._model, self._kernels):
            output = self._model(input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=0)
        logits: Tensor = output.logits[0]
        return logits
