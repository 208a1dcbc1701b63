"""Fair shares without counting: shuffled rounds over a list, each item once a round."""

import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def in_rounds(items: Sequence[_T], key: str, index: int) -> _T:
    """Item number `index` of an endless sequence of rounds; each round has its own order, given by the key.

    The answer depends on nothing else, so a longer corpus begins with the shorter one.
    """
    return _round(items, key, index)[index % len(items)]


def times_before(items: Sequence[_T], key: str, index: int) -> int:
    """How often the item at `index` has come before, in an endless sequence as of `in_rounds`."""
    this_round, at = _round(items, key, index), index % len(items)
    return index // len(items) * list(items).count(this_round[at]) + this_round[:at].count(this_round[at])


def _round(items: Sequence[_T], key: str, index: int) -> list[_T]:
    order = list(items)
    random.Random(f"{key}/{index // len(items)}").shuffle(order)
    return order
