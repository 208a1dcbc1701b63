"""The runner that keeps shared prefixes once. See `attention` for the method."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msm_bench.engine.attention import Level, Plan, active, partial_attention, widen_heads
from msm_bench.engine.plans import DecodePlan, LayerShape, PrefixPlan, ScorePlan, Suffixes, levels_of
from msm_bench.engine.prefix import Node, PrefixTree
from msm_bench.engine.rows import Row, Scored, ScoreRequest
from msm_bench.engine.scoring import Item, cut_items, logit_rows, scored, target_logprobs

logger = logging.getLogger(__name__)

# Shorter stretches are cheaper to compute again than to attend to one by one.
_SHORTEST_SHARED = 64
_SHORTEST_SCORED, _SAVING_SCORED, _OWN_SCORED = 8, 64, 256
# Tokens of room that a new row is counted with before it is known how many it generates.
_EXPECTED = 256
_SMALLEST_CHUNK = 128


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
        self.shapes, self.vocabulary = self._probe()
        self.logit_rows = logit_rows(self.vocabulary, self.device)
        self.tree = PrefixTree(sum(shape.bytes for shape in self.shapes))
        self.suffixes = Suffixes(self.shapes)
        self._levels: list[Level] | None = None
        self._worked = False

    def admit(self, waiting: Sequence[Row]) -> int:
        """See `Runner.admit`."""
        count = min(len(waiting), self.max_rows - len(self.rows))
        while count > 0 and not self._fits(waiting[:count]):
            count //= 2
        if count == 0 and not self.rows and waiting:
            count = 1  # it alone is over the budget, which is an estimate: try
        if count == 0:
            return 0
        fresh = list(waiting[:count])
        contexts = [row.context()[:-1] for row in fresh]
        nodes = self.tree.place(contexts, _SHORTEST_SHARED, _SHORTEST_SHARED, _SHORTEST_SHARED)
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
        self.suffixes.reserve(first + count, max([*(row.length for row in self.rows), *lengths]) + 1)
        for index, (row, node, end, length) in enumerate(zip(fresh, nodes, ends, lengths, strict=True)):
            row.node, row.length = node, length
            node.users += 1
            if end is not node:
                self.suffixes.fill(first + index, end)
        self.rows.extend(fresh)
        self._levels = None
        return count

    def step(self) -> Tensor:
        """See `Runner.step`."""
        lengths = [row.length for row in self.rows]
        self.suffixes.reserve(len(self.rows), max(lengths) + 1)
        if self._levels is None:
            self._levels = levels_of([_node(row).chain() for row in self.rows], [1] * len(self.rows), self.device)
        tokens = [row.tokens[-1] if row.tokens else row.prompt[-1] for row in self.rows]
        last = self.context_length - 1
        positions = [min(_node(row).end + row.length, last) for row in self.rows]
        logits = self._forward(tokens, positions, DecodePlan(self.suffixes, lengths, self._levels), 0)
        for row in self.rows:
            row.length += not row.ended
        self._worked = True
        return logits

    def settle(self, hurry: bool) -> bool:
        """See `Runner.settle`."""
        live = [index for index, row in enumerate(self.rows) if not row.ended]
        ended = len(self.rows) - len(live)
        # Closing gaps copies all suffixes, so a few ended rows are computed along until there are enough of them.
        if not ended or (live and ended * 8 < len(self.rows) and not (hurry and len(self.rows) >= self.max_rows)):
            return False
        self._keep(live)
        return True

    def withdraw(self) -> list[Row]:
        """See `Runner.withdraw`."""
        wanted = self.suffixes.bytes(*self.suffixes.wanted(len(self.rows), max(row.length for row in self.rows) + 1))
        over = self.tree.bytes() + wanted - self.budget
        if over <= 0 or self.tree.forget(over) >= over or len(self.rows) == 1:
            return []
        kept = (len(self.rows) + 1) // 2
        back = [row for row in self.rows[kept:] if not row.ended]
        logger.warning("Memory for %d rows does not suffice; %d go back to wait.", len(self.rows), len(back))
        self._keep([index for index, row in enumerate(self.rows[:kept]) if not row.ended])
        return back

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
        self._levels = None
        self.tree.clear()
        self.suffixes = Suffixes(self.shapes)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return lowered

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Scored]]:
        """See `Runner.score`."""
        prompts = [request.prompt[:-1] for request in requests]
        count = len(requests)
        while count > 1 and not self._room(self.tree.new_tokens(prompts[:count]) * self.tree.token_bytes):
            count //= 2
        nodes = self.tree.place(prompts[:count], _SHORTEST_SCORED, _SAVING_SCORED, _OWN_SCORED)
        self._levels = None  # placing may have cut nodes in two that running rows stand on
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
        suffixes.reserve(1, len(tokens))
        levels = levels_of([second.chain()], [1], self.device)
        for at, token in enumerate(tokens[9:]):
            logits = self._forward([token], [9 + at], DecodePlan(suffixes, [at], levels), 0)
        return logits[-1].float()

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
        logits = self._forward(tokens, positions, plan, places)
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
            self._forward(tokens, positions, PrefixPlan(chunks, self.shapes), 1)
            for node, _, end in chunks:
                node.done = end
            pending = [node for node in pending if node.done < len(node.tokens)]

    @torch.inference_mode()
    def _forward(self, tokens: list[int], positions: list[int], plan: Plan, keep: int | list[int]) -> Tensor:
        """Logits [n, V] at the kept places: all for 0, the last one for 1, those of a list.

        A list, not a tensor: with the layers spread over several GPUs a tensor would be moved to the first of them.
        """
        with active(plan):
            output = self.model(
                input_ids=torch.tensor([tokens], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=keep,
            )
        logits: Tensor = output.logits[0]
        return logits

    def _fits(self, fresh: Sequence[Row]) -> bool:
        contexts = [row.context()[:-1] for row in fresh]
        longest = max([*(row.length for row in self.rows), *(min(row.sampling.max_tokens, _EXPECTED) for row in fresh)])
        more = self.suffixes.bytes(*self.suffixes.wanted(len(self.rows) + len(fresh), longest))
        return self._room(self.tree.new_tokens(contexts) * self.tree.token_bytes + more)

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
        self._levels = None

    def _probe(self) -> tuple[list[LayerShape], int]:
        probe = _ProbePlan()
        logits = self._forward([0, 1], [0, 1], probe, 1)
        return [probe.shapes[layer] for layer in range(len(probe.shapes))], logits.shape[-1]


class _ProbePlan:
    """Plain causal attention that notes what each layer would store."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.shapes: dict[int, LayerShape] = {}

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`."""
        self.shapes[layer] = LayerShape(k.shape[1], k.shape[2], v.shape[2], k.dtype, k.device)
        wide = [widen_heads(x.transpose(0, 1)[None], q.shape[1]) for x in (q, k, v)]
        out, lse = partial_attention(wide[0], wide[1], wide[2], scale, causal=True)
        return out[0].transpose(0, 1).float(), lse[0].transpose(0, 1).float()


def _node(row: Row) -> Node:
    assert row.node is not None
    return row.node
