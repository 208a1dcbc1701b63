"""The patterns as data: `taxonomy.yaml` here, or a file of the user's own in the same form."""

from functools import cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.artefacts import sha256_of_bytes
from msm_bench.errors import RequestError

SHIPPED = Path(__file__).parent / "taxonomy.yaml"


class Near(BaseModel):
    """Another pattern that this one is mistaken for, and how to tell them apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    difference: str


class Pattern(BaseModel):
    """One pattern of reasoning."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str = Field(pattern="^[a-z][a-z_]*$")
    name: str
    side: Literal["misaligned", "aligned"]
    needs_rules: bool = False
    """Only possible where the model was given rules to cite."""
    definition: str
    counts: tuple[str, ...] = Field(min_length=1)
    excludes: tuple[str, ...] = Field(min_length=1, alias="not")
    near: tuple[Near, ...] = ()
    examples: tuple[str, ...] = Field(min_length=2)


class Taxonomy(BaseModel):
    """All patterns, in the order of the file. `sha256` is the file's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    driver: str
    """When a pattern counts as present at all."""
    patterns: tuple[Pattern, ...] = Field(min_length=1)
    sha256: str

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("two patterns have the same id")
        unknown = {near.pattern for pattern in self.patterns for near in pattern.near} - set(self.ids)
        if unknown:
            raise ValueError(f"`near` names patterns that do not exist: {', '.join(sorted(unknown))}")
        return self

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(pattern.id for pattern in self.patterns)

    def rubric(self) -> str:
        """The patterns as the text that a judge reads: definition, what counts, what does not, near misses, examples."""
        return "\n\n".join(_entry(pattern) for pattern in self.patterns)


def _entry(pattern: Pattern) -> str:
    lines = [f"## {pattern.id}", pattern.definition.strip()]
    if pattern.needs_rules:
        lines.append("Only possible where the model refers to a written rule that it was given.")
    lines += ["Counts:", *(f"- {text}" for text in pattern.counts), "Does not count:"]
    lines += [*(f"- {text}" for text in pattern.excludes), *(f"- {near.pattern}: {near.difference}" for near in pattern.near)]
    return "\n".join([*lines, "Examples:", *(f"> {text}" for text in pattern.examples)])


@cache
def load_taxonomy(path: Path = SHIPPED) -> Taxonomy:
    """Reads a taxonomy.

    Raises:
        RequestError: The file is missing, is no YAML, or does not have the form of the shipped one.
    """
    try:
        content = path.read_bytes()
        return Taxonomy.model_validate({**yaml.safe_load(content), "sha256": sha256_of_bytes(content)})
    except OSError as error:
        raise RequestError(f"The taxonomy '{path}' cannot be read ({error.strerror}).", "Name a YAML file.") from error
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:400]
        raise RequestError(f"{path} is no taxonomy: {reason}.", f"Give it the form of {SHIPPED}.") from error
