"""The runner that keeps shared prefixes once. See `attention` for the method."""

import logging
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import takewhile
from types import ModuleType

import torch
from torch import Tensor, nn

from msm_bench.engine.adapters import Route, route_of, routed
from msm_bench.engine.attention import Level, Plan, active
from msm_bench.engine.fusing import fast_rotation, use_kernels
from msm_bench.engine.graphs import GraphDecoder, padded_rows
from msm_bench.engine.memory import ran_out
from msm_bench.engine.plans import DecodePlan, LayerShape, PrefixPlan, ScorePlan, Suffixes, levels_of
from msm_bench.engine.prefix import Node, PrefixTree
from msm_bench.engine.probing import ProbePlan, probe_tokens
from msm_bench.engine.rows import Row, Scored, ScoreRequest
from msm_bench.engine.scoring import Item, cut_items, logit_rows, scored, target_logprobs

logger = logging.getLogger(__name__)

# Shorter stretches are cheaper to compute again than to attend to one by one.
_SHORTEST_SHARED = 64
_SHORTEST_SCORED, _SAVING_SCORED, _OWN_SCORED = 8, 64, 256
# Tokens of room that a new row is counted with before it is known how many it generates.
_EXPECTED = 256
_SMALLEST_CHUNK = 128
# Passes over new prompts between two tokens of the running rows. A GPU does many in the time in which a person waits, and
# changing its batch often costs more.
_CHUNKS, _CHUNKS_CUDA = 4, 32


class SharedRunner:
    """See `rows.Runner`.

    Args:
        model: A causal language model set to the attention `attention.ATTENTION_NAME`.
        context_length: Longest sequence of the model.
        max_rows: At most so many rows at a time.
        budget: Bytes that keys and values may take.
        chunk: Tokens of a forward pass that computes prefixes or scores.
    """

    kind = "shared"

    def __init__(self, model: nn.Module, context_length: int, max_rows: int, budget: int, chunk: int) -> None:
        self.model = model
        self.context_length = context_length
        self.max_rows = max_rows
        self.budget = budget
        self.chunk = chunk
        self.device: torch.device = next(model.parameters()).device
        self.rows: list[Row] = []
        self.rotation: ModuleType | None = None
        self.shapes, self.vocabulary = self._probe()
        self.logit_rows = logit_rows(self.vocabulary, self.device)
        self.tree = PrefixTree(sum(shape.bytes for shape in self.shapes))
        self.suffixes = Suffixes(self.shapes)
        self.decoder: GraphDecoder | None = None
        self.ahead = False  # steps may begin before the last tokens are known: where they run beside Python
        self._levels: list[Level] | None = None
        self._route: Route = ()
        self._worked = False

    @torch.inference_mode()
    def adapter_effect(self, number: int) -> float:
        """Largest change of a logit that an adapter makes on some fixed tokens."""
        tokens = probe_tokens(self.model)[0].tolist()
        positions = list(range(len(tokens)))
        plain = self._forward(tokens, positions, ProbePlan(), 0)
        changed = self._forward(tokens, positions, ProbePlan(), 0, [(number, None)])
        return float((changed.float() - plain.float()).abs().max())

    def use_graphs(self, kernels: ModuleType, capture: bool = True) -> None:
        """Decode by `graphs` from now on, if a step by them equals one without.

        Args:
            kernels: The module `kernels`.
            capture: See `GraphDecoder`.
        """
        shape = self.shapes[0]
        if any(other != shape for other in self.shapes) or shape.key_width != shape.value_width:
            return
        tokens = probe_tokens(self.model)[0].tolist()
        expected = self.check_logits(tokens)
        undo: Callable[[], None] = lambda: None  # noqa: E731
        try:
            undo = use_kernels(self.model, kernels)
            self.decoder = GraphDecoder(self.model, self.shapes, self._heads, kernels, capture)
            found = self.check_logits(tokens)
        except Exception as error:  # whatever a compiler or a driver may raise: the plain way works
            self.decoder = None
            undo()
            if ran_out(error):
                raise
            logger.warning("Decoding by CUDA graphs does not work here (%s); it is slower without.", error)
            return
        difference = ((found - expected).square().mean().sqrt() / expected.std()).item()
        self.decoder.forget_all()
        if not difference <= (1e-3 if shape.dtype == torch.float32 else 0.15):
            logger.warning("Decoding by CUDA graphs would change logits by %.2g of their spread; it is left out.", difference)
            self.decoder = None
            undo()
            return
        self.suffixes.steady = True
        self.ahead = capture

    def admit(self, waiting: Sequence[Row]) -> int:
        """See `Runner.admit`."""
        waiting = self._next(self._together(waiting))
        count = min(len(waiting), self.max_rows - len(self.rows))
        while count > 0 and not self._fits(waiting[:count]):
            count //= 2
        if count == 0 and not self.rows and waiting:
            count = 1  # it alone is over the budget, which is an estimate: try
        if count == 0:
            return 0
        fresh = list(waiting[:count])
        contexts = [row.context()[:-1] for row in fresh]
        adapters = [row.adapter for row in fresh]
        nodes = self.tree.place(contexts, _SHORTEST_SHARED, _SHORTEST_SHARED, _SHORTEST_SHARED, adapters)
        tails: dict[tuple[int, tuple[int, ...]], Node] = {}
        ends = []
        for context, node in zip(contexts, nodes, strict=True):
            tail = context[node.end :]
            ends.append(tails.setdefault((id(node), tail), Node(tail, node)) if tail else node)
        pending = {id(link): link for end in ends for link in end.chain() if link.done < len(link.tokens)}
        for row, end in zip(fresh, ends, strict=True):
            # What the first row of a batch has computed is there already for the others.
            known = sum(len(link.tokens) for link in end.chain() if id(link) not in pending)
            for link in end.chain():
                pending.pop(id(link), None)
            row.cached = min(known, len(row.prompt)) if row.cached is None else row.cached
        self._compute([link for end in ends for link in end.chain()])
        first = len(self.rows)
        lengths = [len(context) - node.end for context, node in zip(contexts, nodes, strict=True)]
        ahead = max(min(row.sampling.max_tokens, _EXPECTED) + length for row, length in zip(fresh, lengths, strict=True))
        longest = max([*(row.length for row in self.rows), *lengths]) + 1
        # Every change of size costs a graph anew, so it is made for what is expected at once.
        self.suffixes.reserve(self._room_for(first + count), max(longest, ahead) if self.decoder else longest)
        for index, (row, node, end, length) in enumerate(zip(fresh, nodes, ends, lengths, strict=True)):
            row.node, row.length = node, length
            node.users += 1
            if end is not node:
                self.suffixes.fill(first + index, end)
        self.rows.extend(fresh)
        self._moved()
        return count

    def _next(self, waiting: Sequence[Row]) -> Sequence[Row]:
        """The first of `waiting` whose prompts are few new tokens: running rows and first answers need not wait long."""
        most = self.chunk * (_CHUNKS_CUDA if self.device.type == "cuda" else _CHUNKS)
        first: dict[tuple[int, tuple[int, ...]], int] = {}
        for index, row in enumerate(waiting):
            first.setdefault((row.adapter, row.context()[:-1]), index)
        prompts = list(first)

        def new(count: int) -> int:
            return self.tree.new_tokens([prompt for _, prompt in prompts[:count]], [adapter for adapter, _ in prompts[:count]])

        # One prompt always; more of them never have fewer new tokens.
        fitting = max(1, bisect_right(range(1, len(prompts) + 1), most, key=new))
        return waiting[: first[prompts[fitting]]] if fitting < len(prompts) else waiting

    def _together(self, waiting: Sequence[Row]) -> Sequence[Row]:
        """The first of `waiting` that may share a batch: a captured graph serves one adapter, a plain pass several."""
        if self.decoder is None or not waiting:
            return waiting
        adapter = (self.rows or waiting)[0].adapter
        return list(takewhile(lambda row: row.adapter == adapter, waiting))

    def undisturbed(self, hurry: bool) -> bool:
        """See `Runner.undisturbed`."""
        return self.ahead and not self._gaps(hurry) and self._over_budget() <= 0

    def step(self, newest: Tensor | None = None) -> Tensor:
        """See `Runner.step`."""
        lengths = [row.length for row in self.rows]
        self.suffixes.reserve(self._room_for(len(self.rows)), max(lengths) + 1)
        known = [row.tokens[-1] if row.tokens else row.prompt[-1] for row in self.rows] if newest is None else newest
        last = self.context_length - 1
        positions = [min(_node(row).end + row.length, last) for row in self.rows]
        logits = self._decode(known, positions, lengths, [_node(row) for row in self.rows], self.suffixes)
        for row in self.rows:
            row.length += not row.ended
        self._worked = True
        return logits

    def settle(self, hurry: bool) -> bool:
        """See `Runner.settle`."""
        if not self._gaps(hurry):
            return False
        self._keep([index for index, row in enumerate(self.rows) if not row.ended])
        return True

    def _gaps(self, hurry: bool) -> bool:
        """Whether so many rows have ended that closing their gaps is worth the copying of all suffixes."""
        ended = sum(row.ended for row in self.rows)
        return ended > 0 and (ended * 8 >= len(self.rows) or (hurry and len(self.rows) >= self.max_rows))

    def withdraw(self) -> list[Row]:
        """See `Runner.withdraw`."""
        over = self._over_budget()
        if over <= 0 or self.tree.forget(over) >= over or len(self.rows) == 1:
            return []
        kept = (len(self.rows) + 1) // 2
        back = [row for row in self.rows[kept:] if not row.ended]
        logger.warning("Memory for %d rows does not suffice; %d go back to wait.", len(self.rows), len(back))
        self._keep([index for index, row in enumerate(self.rows[:kept]) if not row.ended])
        return back

    def _over_budget(self) -> int:
        """Bytes by which prefixes and the next step's room exceed the budget."""
        wanted = self.suffixes.bytes(*self.suffixes.wanted(len(self.rows), max(row.length for row in self.rows) + 1))
        return self.tree.bytes() + wanted - self.budget

    def reset(self, lower: bool) -> bool:
        """See `Runner.reset`."""
        # With the smallest pieces it is still worth another try when prefixes had piled up meanwhile.
        lowered = lower and (self.max_rows > 1 or self.chunk > _SMALLEST_CHUNK or self._worked)
        if lowered:
            self.max_rows = max(1, min(self.max_rows, len(self.rows) or self.max_rows) // 2)
            self.chunk = max(_SMALLEST_CHUNK, self.chunk // 2)
            self.budget = min(self.budget, self.tree.bytes() + self.suffixes.bytes()) * 3 // 4
            logger.warning("Memory ran out; going on with at most %d rows at a time.", self.max_rows)
        self._worked = False
        for row in self.rows:
            row.node = None
        self.rows = []
        self._moved()
        self.tree.clear()
        if self.decoder is not None:
            self.decoder.forget_all()
        self.suffixes = Suffixes(self.shapes, steady=self.decoder is not None)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return lowered

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        """See `Runner.score`."""
        prompts, adapters = [request.prompt[:-1] for request in requests], [request.adapter for request in requests]
        count = len(requests)
        while count > 1 and not self._room(self.tree.new_tokens(prompts[:count], adapters[:count]) * self.tree.token_bytes):
            count //= 2
        nodes = self.tree.place(prompts[:count], _SHORTEST_SCORED, _SAVING_SCORED, _OWN_SCORED, adapters[:count])
        self._moved()  # placing may have cut nodes in two that running rows stand on
        for node in nodes:
            node.users += 1
        try:
            self._compute([link for node in nodes for link in node.chain()])
            items = [
                item
                for index, (request, node) in enumerate(zip(requests[:count], nodes, strict=True))
                for item in cut_items(index, request, node, self.chunk)
            ]
            found = self._score_items(items)
        finally:
            for node in nodes:
                node.users -= 1
        self._worked = True
        return [
            [scored(found[index, which]) for which in range(len(request.continuations))]
            for index, request in enumerate(requests[:count])
        ]

    def check_logits(self, tokens: list[int]) -> Tensor:
        """Logits [V] after the last of some tokens, by way of a chunked prefix, a second one and single steps."""
        first = Node(tokens[:5], self.tree.root)
        second = Node(tokens[5:9], first)
        for start, end in ((0, 3), (3, 5)):
            self._forward(tokens[start:end], list(range(start, end)), PrefixPlan([(first, start, end)], self.shapes), 1)
        self._forward(tokens[5:9], list(range(5, 9)), PrefixPlan([(second, 0, 4)], self.shapes), 1)
        suffixes = Suffixes(self.shapes)
        suffixes.reserve(self._room_for(1), len(tokens))
        self._moved()
        for at, token in enumerate(tokens[9:]):
            logits = self._decode([token], [9 + at], [at], [second], suffixes)
        self._moved()
        return logits[-1].float()

    def _decode(
        self,
        tokens: Sequence[int] | Tensor,
        positions: list[int],
        lengths: list[int],
        nodes: Sequence[Node],
        suffixes: Suffixes,
    ) -> Tensor:
        """Logits [R, V] after one new token a row."""
        if self.decoder is not None:
            chains = [] if self.decoder.knows_rows else [node.chain() for node in nodes]
            return self.decoder.step(tokens, positions, lengths, chains, suffixes, nodes[0].adapter)
        if self._levels is None:
            self._levels = levels_of([node.chain() for node in nodes], [1] * len(nodes), self.device)
            self._route = route_of([node.adapter for node in nodes], [1] * len(nodes), self.device)
        return self._forward(tokens, positions, DecodePlan(suffixes, lengths, self._levels), 0, self._route)

    def _moved(self) -> None:
        """Rows joined, left or moved, or nodes were cut: what is known of who sees what is out of date."""
        self._levels = None
        if self.decoder is not None:
            self.decoder.forget_rows()

    def _room_for(self, rows: int) -> int:
        return rows if self.decoder is None else padded_rows(rows)

    def _score_items(self, items: list[Item]) -> dict[tuple[int, int], list[float]]:
        # Neighbours below the same node and of like length: few spans, little padding.
        order = {id(node): place for place, node in enumerate(self.tree.nodes())}
        items.sort(key=lambda item: (order.get(id(item.node), -1), len(item.tokens)))
        found: dict[tuple[int, int], list[float]] = {}
        batch: list[Item] = []
        longest = targets = 0
        for item in items:
            longest, targets = max(longest, len(item.tokens)), targets + len(item.targets)
            if batch and (longest * (len(batch) + 1) > self.chunk or targets > self.logit_rows):
                self._score_batch(batch, found)
                batch, longest, targets = [], len(item.tokens), len(item.targets)
            batch.append(item)
        if batch:
            self._score_batch(batch, found)
        return found

    def _score_batch(self, batch: list[Item], found: dict[tuple[int, int], list[float]]) -> None:
        widths = [len(item.tokens) for item in batch]
        levels = levels_of([item.node.chain() for item in batch], widths, self.device)
        plan = ScorePlan([item.parents for item in batch], levels, self.shapes[0])
        tokens = [token for item in batch for token in item.tokens]
        positions = [position for item in batch for position in item.positions]
        keep, targets, owners = [], [], []
        begin = 0
        for item in batch:
            for at, token, owner in item.targets:
                keep.append(begin + at)
                targets.append(token)
                owners.append(owner)
            begin += len(item.tokens)
        # A position can have several targets (the first tokens of the continuations): its logits are made once.
        places = sorted(set(keep))
        row_of = {place: row for row, place in enumerate(places)}
        route = route_of([item.node.adapter for item in batch], widths, self.device)
        logits = self._forward(tokens, positions, plan, places, route)
        logprobs = target_logprobs(logits, [row_of[place] for place in keep], targets)
        for owner, value in zip(owners, logprobs, strict=True):
            found.setdefault(owner, []).append(value)

    def _compute(self, nodes: Sequence[Node]) -> None:
        """Compute the keys and values of nodes that lack them, parents first, in passes of at most `chunk` tokens."""
        pending = list({id(node): node for node in nodes if node.done < len(node.tokens)}.values())
        while pending:
            chunks: list[tuple[Node, int, int]] = []
            left = self.chunk
            for node in pending:
                before = node.parent
                ready = before is None or before.done == len(before.tokens)
                if ready and left:
                    length = min(left, len(node.tokens) - node.done)
                    chunks.append((node, node.done, node.done + length))
                    left -= length
            tokens = [token for node, start, end in chunks for token in node.tokens[start:end]]
            positions = [node.start + at for node, start, end in chunks for at in range(start, end)]
            route = route_of([node.adapter for node, _, _ in chunks], [end - start for _, start, end in chunks], self.device)
            self._forward(tokens, positions, PrefixPlan(chunks, self.shapes), 1, route)
            for node, _, end in chunks:
                node.done = end
            pending = [node for node in pending if node.done < len(node.tokens)]

    @torch.inference_mode()
    def _forward(
        self, tokens: Sequence[int] | Tensor, positions: list[int], plan: Plan, keep: int | list[int], route: Route = ()
    ) -> Tensor:
        """Logits [n, V] at the kept places: all for 0, the last one for 1, those of a list.

        A list, not a tensor: with the layers spread over several GPUs a tensor would be moved to the first of them.
        """
        with active(plan), routed(route), fast_rotation(self.model, self.rotation):
            output = self.model(
                input_ids=torch.as_tensor(tokens, device=self.device)[None],
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=keep,
            )
        logits: Tensor = output.logits[0]
        return logits

    def _fits(self, fresh: Sequence[Row]) -> bool:
        contexts, adapters = [row.context()[:-1] for row in fresh], [row.adapter for row in fresh]
        longest = max([*(row.length for row in self.rows), *(min(row.sampling.max_tokens, _EXPECTED) for row in fresh)])
        more = self.suffixes.bytes(*self.suffixes.wanted(len(self.rows) + len(fresh), longest))
        return self._room(self.tree.new_tokens(contexts, adapters) * self.tree.token_bytes + more)

    def _room(self, wanted: int) -> bool:
        """Whether prefixes leave room for `wanted` bytes, unused ones being forgotten for it."""
        over = self.tree.bytes() + wanted - self.budget
        return over <= 0 or self.tree.forget(over) >= over

    def _keep(self, indices: list[int]) -> None:
        for index in set(range(len(self.rows))) - set(indices):
            row = self.rows[index]
            _node(row).users -= 1
            row.node = None
        self.rows = [self.rows[index] for index in indices]
        self.suffixes.keep(indices, max((row.length for row in self.rows), default=0) + 1)
        self._moved()

    def _probe(self) -> tuple[list[LayerShape], int]:
        probe = ProbePlan()
        logits = self._forward([0, 1], [0, 1], probe, 1)
        self._heads = probe.heads
        return [probe.shapes[layer] for layer in range(len(probe.shapes))], logits.shape[-1]


def _node(row: Row) -> Node:
    assert row.node is not None
    return row.node
