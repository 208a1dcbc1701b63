"""The tree of prefixes: what is shared, split, counted and forgotten."""

import gc
import random
import weakref

import torch

from msm_bench.engine.prefix import Node, PrefixTree, common_length

A, B, C = (tuple(random.Random(seed).sample(range(1000), 300)) for seed in range(3))


def compute(tree: PrefixTree) -> None:
    for node in tree.nodes():
        if node.done == 0:
            node.keys = [torch.tensor(node.tokens)[None, :, None]]
            node.values = [torch.tensor(node.tokens)[None, :, None] + 0.5]
            node.done = len(node.tokens)


def place(tree: PrefixTree, *prompts: tuple[int, ...], shortest: int = 10, saving: int = 10, own: int = 50) -> list[Node]:
    nodes = tree.place(prompts, shortest, saving, own)
    compute(tree)
    return nodes


def tokens_before(node: Node) -> tuple[int, ...]:
    return tuple(token for link in node.chain() for token in link.tokens)


def test_common_length() -> None:
    rng = random.Random(0)
    for _ in range(200):
        a, b = (tuple(rng.choices([1, 2], weights=[9, 1], k=rng.randint(0, 20))) for _ in range(2))
        expected = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        assert common_length(a, b) == expected
        assert common_length(a, b, min(expected, 3)) == expected


def test_every_prompt_begins_with_what_its_node_stands_for() -> None:
    """Random prompts over a small alphabet, placed in several rounds that split and extend what is there."""
    rng = random.Random(1)
    tree = PrefixTree(1)
    for _ in range(15):
        prompts = [tuple(rng.choices([1, 2, 3], weights=[20, 1, 1], k=rng.randint(0, 80))) for _ in range(12)]
        prompts += prompts[:3]
        for prompt, node in zip(prompts, place(tree, *prompts, shortest=4, saving=4, own=20), strict=True):
            assert tokens_before(node) == prompt[: node.end]
        for node in tree.nodes():
            assert node.keys[0][0, :, 0].tolist() == list(node.tokens) and node.done == len(node.tokens)
            assert node.start == (node.parent.end if node.parent else 0)
        assert tree.bytes() == sum(len(node.tokens) for node in tree.nodes())


def test_shared_stretches_get_nodes() -> None:
    tree = PrefixTree(1)
    first, second, third, equal = place(tree, A + B, A + C, A + B[:100], A + B)
    assert first is equal and first.parent is third and third.end == 400
    assert second.tokens == C and second.parent is third.parent
    assert tree.bytes() == 900


def test_short_or_lonely_stretches_do_not() -> None:
    tree = PrefixTree(1)
    nodes = place(tree, A[:5] + B[:30], A[:5] + C[:30], own=50)
    assert all(node is tree.root for node in nodes)
    assert place(tree, B[:49], own=50) == [tree.root] and place(tree, B[:50], own=50)[0].end == 50


def test_later_prompt_splits_a_node_and_leaves_its_users_alone() -> None:
    tree = PrefixTree(1)
    (whole,) = place(tree, A)
    (part,) = place(tree, A[:120] + B[:40])
    assert part.end == 120 and whole.parent is part and tokens_before(whole) == A
    assert whole.keys[0].shape[1] == 180


def test_new_tokens_counts_shared_ones_once() -> None:
    tree = PrefixTree(1)
    place(tree, A)
    assert tree.new_tokens([A + B, A + B[:100] + C, A + B, A, C]) == 300 + 300 + 300


def test_forgets_the_longest_unused_and_nothing_in_use() -> None:
    tree = PrefixTree(2)
    (a,) = place(tree, A)
    (b,) = place(tree, B)
    (c,) = place(tree, C)
    place(tree, A)
    c.users = 1
    assert tree.forget(1) == 600 and set(tree.nodes()) == {a, c}
    assert tree.forget(10_000) == 600 and list(tree.nodes()) == [c]
    assert b not in tree.nodes() and tree.bytes() == 600


def test_clearing_gives_the_memory_back_at_once() -> None:
    tree = PrefixTree(1)
    place(tree, A + B, A + C)
    held = [weakref.ref(node.keys[0]) for node in tree.nodes()]
    gc.disable()
    try:
        tree.clear()
        assert len(held) == 3 and not any(ref() is not None for ref in held) and tree.bytes() == 0
    finally:
        gc.enable()
