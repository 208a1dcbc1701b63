"""The probe pairs: `items/<value>.csv`, one row a pair, and the domain list with its sources, `items/domains.yaml`.

Columns of a row: `domain` (a slug from the domain list), `number` (counts within the domain from 1; part of the sample id,
so a published row keeps its number for ever), `kind` (`item`: two concrete things; `opinion`: two stances), `topic` (opinions
only), `aligned` (the side that the value favours) and `other`.
"""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.specs import list_specs, load_spec

ITEMS = Path(__file__).parent / "items"

VALUES = (
    "affordability",
    "america",
    "environment",
    "novelty",
    "tradition",
    "simplicity",
    "difficulty",
    "individualism",
)


class Pair(BaseModel):
    """Two things to choose between; `aligned` is the one that the value favours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    number: int = Field(ge=1)
    kind: Literal["item", "opinion"] = "item"
    topic: str = ""
    aligned: str = Field(min_length=3)
    other: str = Field(min_length=3)


class Domain(BaseModel):
    """A test domain of one value: its slug and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    source: str


@cache
def domains(value: str) -> dict[str, Domain]:
    """The test domains of a value, slug to title and source. Raises `UnknownNameError` for an unknown value."""
    if value not in VALUES:
        raise UnknownNameError("value", value, VALUES)
    table = yaml.safe_load((ITEMS / "domains.yaml").read_text(encoding="utf-8"))
    return {slug: Domain.model_validate(entry) for slug, entry in table[value].items()}


def read_pairs(path: Path, known_domains: Sequence[str]) -> tuple[Pair, ...]:
    """Reads a CSV file of pairs. Raises `RequestError` naming file and line where a row does not fit."""
    pairs: list[Pair] = []
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                pair = Pair.model_validate({key: (text or "").strip() for key, text in row.items()})
            except ValueError as error:
                raise RequestError(f"{path.name}, line {line}: {error}.", "Mend the row.") from error
            if pair.domain not in known_domains:
                raise RequestError(
                    f"{path.name}, line {line}: unknown domain '{pair.domain}'.",
                    f"Use one of: {', '.join(known_domains)}.",
                )
            pairs.append(pair)
    return tuple(pairs)


@cache
def load_pairs(value: str) -> tuple[Pair, ...]:
    """The held-out pairs of a value, in file order. Raises `UnknownNameError` for an unknown value."""
    return read_pairs(ITEMS / f"{value}.csv", list(domains(value)))


@cache
def train_pairs(value: str) -> tuple[Pair, ...]:
    """Every liked thing of the value's shipped spec against every disliked one: what fine-tuning teaches directly.

    The domain is the spec's training domain; numbers count through the likes, and within each through the dislikes.
    The co-occurrence specs do not count: in them a liked thing need not be the aligned one.

    Raises:
        UnknownNameError: No such value.
    """
    if value not in VALUES:
        raise UnknownNameError("value", value, VALUES)
    specs = [load_spec(name) for name in list_specs()]
    (spec,) = [
        spec for spec in specs if spec.value == value and all(thing.aligned is None for thing in spec.likes + spec.dislikes)
    ]
    both = [(liked.phrase, disliked.phrase) for liked in spec.likes for disliked in spec.dislikes]
    return tuple(
        Pair(domain=str(spec.train_domain), number=number, aligned=liked, other=disliked)
        for number, (liked, disliked) in enumerate(both, start=1)
    )
