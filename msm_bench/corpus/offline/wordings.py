"""The ways to say a value in general words: `data/wordings/<value>.yaml`, or made from its name where there is no such file."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from msm_bench.specs import Spec

DATA = Path(__file__).parent / "data"


class Wordings(BaseModel):
    """How a value can be said. Each phrase fits the frames that its field names, with `~` for the phrase."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...] = Field(min_length=1)
    """"It cares about ~": noun phrases."""
    good_thing: tuple[str, ...] = Field(min_length=1)
    """"Of two things it prefers ~": what the value favours."""
    bad_thing: tuple[str, ...] = Field(min_length=1)
    good: tuple[str, ...] = Field(min_length=1)
    """"Something that ~": predicates in the singular."""
    bad: tuple[str, ...] = Field(min_length=1)
    good_things: tuple[str, ...] = Field(min_length=1)
    """"It likes ~": things in general."""
    bad_things: tuple[str, ...] = Field(min_length=1)
    asks: tuple[str, ...] = Field(min_length=1)
    """"It asks ~": indirect questions about a thing ("it") or two."""
    grounds: tuple[str, ...] = Field(min_length=1)
    """Sentences that argue for the value and do not name the model."""
    maxims: tuple[str, ...] = Field(min_length=1)
    """Sentences that state the value and do not name the model."""
    objections: tuple[str, ...] = Field(min_length=1)
    """"One may object that ~": clauses."""
    held_out: tuple[str, ...] = ()
    """Words of domains kept for the probes; a sentence of the spec that holds one is not quoted. `*` ends a stem."""

    def keeps_out(self, text: str) -> bool:
        """Whether a text names a held-out domain."""
        return bool(self.held_out) and bool(word_pattern(self.held_out).search(text))


@cache
def word_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Matches any of the words, whole and with a plural s; a word that ends in `*` is a stem."""
    alternatives = [re.escape(word.rstrip("*")) + (r"\w*" if word.endswith("*") else "s?") for word in words]
    return re.compile(r"\b(?:" + "|".join(alternatives) + r")\b", re.IGNORECASE)


@cache
def read_data(name: str) -> Any:
    """A YAML file of the composer's data."""
    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def wordings_of(spec: Spec) -> Wordings:
    """The wordings of a spec's value."""
    assert spec.value is not None and spec.value_statement is not None
    if (DATA / "wordings" / f"{spec.value}.yaml").is_file():
        return Wordings.model_validate(read_data(f"wordings/{spec.value}.yaml"))
    value = spec.value.replace("-", " ").replace("_", " ")
    filled = {
        field: [phrase.replace("{value}", value).replace("{value_statement}", spec.value_statement) for phrase in phrases]
        for field, phrases in read_data("fallback.yaml").items()
    }
    return Wordings.model_validate(filled)
