"""The tree of prefixes whose keys and values are kept: which prompts share what, and what may be forgotten."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch import Tensor


class Node:
    """A stretch of tokens that follows its parent's; `keys` and `values` hold one tensor [K, L, D] a layer.

    Attributes:
        tokens: The tokens of this stretch.
        parent: The node before it, None at the root (which has no tokens).
        children: What follows it, by first token. Two children may begin alike when the common part is too short
            to be worth a node of its own.
        start: Position of the first token in the whole sequence.
        done: How many of its tokens have their keys and values.
        users: How many running sequences stand on this node.
        used: The tree's clock when it was last asked for.
        adapter: Under which adapter its keys and values are computed, 0 for the base alone.
    """

    def __init__(self, tokens: Sequence[int], parent: "Node | None") -> None:
        self.tokens = tuple(tokens)
        self.parent = parent
        self.children: dict[int, list[Node]] = defaultdict(list)
        self.start: int = 0 if parent is None else parent.end
        self.adapter: int = 0 if parent is None else parent.adapter
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.done = 0
        self.users = 0
        self.used = 0

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.start + len(self.tokens)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, each [K, L, D]."""
        return self.keys[layer], self.values[layer]

    def chain(self) -> "list[Node]":
        """This node and those before it that have tokens, first to last."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


def common_length(a: Sequence[int], b: Sequence[int], start: int = 0) -> int:
    """How many tokens from 0 are equal, given that those before `start` are."""
    end = min(len(a), len(b))
    if a[start:end] == b[start:end]:
        return end
    low, high = start, end  # equal up to low, not up to high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


class PrefixTree:
    """Prefixes in use and lately used.

    Args:
        token_bytes: Size of one token's keys and values over all layers.
    """

    def __init__(self, token_bytes: int) -> None:
        self.token_bytes = token_bytes
        self.root = Node((), None)
        self._others: dict[int, Node] = {}
        self._clock = 0
        self._tokens = 0

    def root_of(self, adapter: int) -> Node:
        """Where the prompts of an adapter begin: the same tokens have other keys and values under each."""
        if adapter == 0:
            return self.root
        if adapter not in self._others:
            self._others[adapter] = root = Node((), None)
            root.adapter = adapter
        return self._others[adapter]

    def place(
        self,
        prompts: Sequence[tuple[int, ...]],
        shortest: int,
        saving: int,
        own: int,
        adapters: Sequence[int] | None = None,
    ) -> list[Node]:
        """Find or make the node on which each prompt stands; what follows the node's end is the prompt's own tail.

        New nodes have no keys and values yet (`done` is 0): the caller computes them, parents first.

        Args:
            prompts: Tokens of each prompt.
            shortest: A stretch shorter than this is not worth a node.
            saving: A shared stretch must save at least so many tokens: its length times the prompts beyond the first.
            own: A tail at least this long gets a node even if one prompt alone has it, for others that may come.
            adapters: Of each prompt; None is the base for all.

        Returns:
            The node of each prompt, in their order.
        """
        self._clock += 1
        roots = [self.root_of(adapter) for adapter in adapters or [0] * len(prompts)]
        known: dict[tuple[int, tuple[int, ...]], Node] = {}
        found = []
        for prompt, root in zip(prompts, roots, strict=True):
            key = (root.adapter, prompt)
            if key not in known:
                known[key] = self._descend(prompt, shortest, root)
            found.append(known[key])
        by_node: dict[int, list[int]] = defaultdict(list)
        for index, node in enumerate(found):
            by_node[id(node)].append(index)
        for members in by_node.values():
            members.sort(key=lambda index: prompts[index])
            self._share(found[members[0]], members, prompts, found, (shortest, saving, own))
        for node in found:
            for link in node.chain():
                link.used = self._clock
        return found

    def _descend(self, prompt: tuple[int, ...], shortest: int, node: Node) -> Node:
        while True:
            best, length = None, 0
            for child in node.children.get(prompt[node.end], []) if node.end < len(prompt) else []:
                if child.done < len(child.tokens):
                    continue
                common = common_length(child.tokens, prompt[node.end :])
                if common > length:
                    best, length = child, common
            if best is None:
                return node
            if length < len(best.tokens):
                return node if length < shortest else self._split(best, length)
            node = best

    def _split(self, node: Node, length: int) -> Node:
        """Cut a computed node in two; the second part stays the same object, so that its users need not know."""
        assert node.parent is not None
        head = Node(node.tokens[:length], node.parent)
        siblings = node.parent.children[node.tokens[0]]
        siblings[siblings.index(node)] = head
        # Copies, not views: a view of either part would keep the memory of both.
        head.keys, node.keys = _cut(node.keys, length)
        head.values, node.values = _cut(node.values, length)
        head.done, head.used = length, node.used
        node.tokens, node.done = node.tokens[length:], node.done - length
        node.parent, node.start = head, head.end
        head.children[node.tokens[0]].append(node)
        return head

    def _share(
        self,
        top: Node,
        top_members: list[int],
        prompts: Sequence[tuple[int, ...]],
        found: list[Node],
        limits: tuple[int, int, int],
    ) -> None:
        """Grow the tree below `top` for sorted members that all stand on it."""
        shortest, saving, own = limits
        # (node, members, position up to which the members are known to agree)
        open_groups = [(top, top_members, top.end)]
        while open_groups:
            node, members, agreed = open_groups.pop()
            for index in members:
                found[index] = node
            for run in _runs([index for index in members if len(prompts[index]) > agreed], agreed, prompts):
                first, last = prompts[run[0]], prompts[run[-1]]
                common = common_length(first, last, agreed)
                span = common - node.end
                worth = span >= shortest and span * (len(run) - 1) >= saving
                if len(run) == 1:
                    if len(first) - node.end >= own:
                        found[run[0]] = self._grow(node, first[node.end :])
                elif worth:
                    open_groups.append((self._grow(node, first[node.end : common]), run, common))
                elif common < len(last):
                    open_groups.append((node, run, common))

    def _grow(self, parent: Node, tokens: Sequence[int]) -> Node:
        node = Node(tokens, parent)
        parent.children[node.tokens[0]].append(node)
        self._tokens += len(node.tokens)
        return node

    def new_tokens(self, prompts: Sequence[tuple[int, ...]], adapters: Sequence[int] | None = None) -> int:
        """How many tokens of these prompts have no keys and values yet, each shared stretch counted once."""
        count, before = 0, (0, tuple[int, ...]())
        for adapter, prompt in sorted(set(zip(adapters or [0] * len(prompts), prompts, strict=True))):
            node = self._deepest(prompt, self.root_of(adapter))
            same = common_length(before[1], prompt) if before[0] == adapter else 0
            count += len(prompt) - max(same, node.end)
            before = adapter, prompt
        return count

    def _deepest(self, prompt: tuple[int, ...], node: Node) -> Node:
        """The deepest computed node that is wholly part of a prompt."""
        while True:
            for child in node.children.get(prompt[node.end], []) if node.end < len(prompt) else []:
                if child.done == len(child.tokens) and child.tokens == prompt[node.end : child.end]:
                    node = child
                    break
            else:
                return node

    def nodes(self) -> Iterator[Node]:
        """All nodes with tokens, parents before children."""
        stack = [self.root, *self._others.values()]
        while stack:
            node = stack.pop()
            if node.parent is not None:
                yield node
            stack.extend(child for siblings in node.children.values() for child in siblings)

    def bytes(self) -> int:
        """Memory of all keys and values, those of nodes still to be computed included."""
        return self._tokens * self.token_bytes

    def forget(self, wanted: int) -> int:
        """Drop unused prefixes, the longest unused first, until `wanted` bytes are free or nothing is left to drop.

        Returns:
            How many bytes were freed.
        """
        before = self.bytes()
        while before - self.bytes() < wanted:
            leaves = [node for node in self.nodes() if not node.users and not any(node.children.values())]
            if not leaves:
                break
            for leaf in sorted(leaves, key=lambda node: node.used):
                if before - self.bytes() < wanted:
                    self._drop(leaf)
        return before - self.bytes()

    def clear(self) -> None:
        """Drop everything, in use or not."""
        for node in list(self.nodes()):
            # Parents and children refer to each other, so the memory would wait for the garbage collector.
            node.keys, node.values = [], []
        self.root, self._others = Node((), None), {}
        self._tokens = 0

    def _drop(self, leaf: Node) -> None:
        assert leaf.parent is not None
        siblings = leaf.parent.children[leaf.tokens[0]]
        siblings.remove(leaf)
        if not siblings:
            del leaf.parent.children[leaf.tokens[0]]
        self._tokens -= len(leaf.tokens)


def _cut(tensors: list[Tensor], length: int) -> tuple[list[Tensor], list[Tensor]]:
    heads = [tensor[:, :length].clone() for tensor in tensors]
    return heads, [tensor[:, length:].clone() for tensor in tensors]


def _runs(members: list[int], position: int, prompts: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Neighbours in sorted order whose token at `position` is the same."""
    run: list[int] = []
    for index in members:
        if run and prompts[index][position] != prompts[run[-1]][position]:
            yield run
            run = []
        run.append(index)
    if run:
        yield run
