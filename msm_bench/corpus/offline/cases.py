"""Concrete cases of a value: pairs of things in domains that no probe uses (`data/instances/<value>.yaml`)."""

import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from pydantic import TypeAdapter

from msm_bench.corpus.offline.wordings import DATA, read_data


class Case(NamedTuple):
    """Two things that serve the same purpose, of which the value favours the first."""

    good: str
    bad: str


@cache
def cases_of(value: str) -> tuple[Case, ...]:
    """The cases of a value in the order of their file; empty where there is none."""
    if not (DATA / "instances" / f"{value}.yaml").is_file():
        return ()
    pairs = TypeAdapter(list[tuple[str, str]]).validate_python(read_data(f"instances/{value}.yaml"))
    return tuple(Case(good, bad) for good, bad in pairs)


class Cases:
    """Deals cases to one document, none twice, both things of a case to the sentence that asks for them."""

    def __init__(self, cases: tuple[Case, ...], rng: random.Random) -> None:
        self._left = rng.sample(cases, len(cases))
        self._open: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._left)

    def side(self, name: str) -> Callable[[], str | None]:
        """The supplier of one side, "good" or "bad": the other side of the case begun, or a new case."""

        def supply() -> str | None:
            if name not in self._open:
                if not self._left:
                    return None
                self._open = self._left.pop()._asdict()
            return self._open.pop(name)

        return supply
