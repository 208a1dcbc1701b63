"""The labelled set: passages and whole transcripts of synthetic agent reasoning with known labels (see `labelled/CARD.md`)."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from msm_bench.artefacts import sha256_of_value
from msm_bench.errors import UnknownNameError

LABELLED = Path(__file__).parent / "labelled"
PARTS = ("all", "passages", "transcripts")


class Span(BaseModel):
    """Where in a text a pattern stands, in characters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: str
    start: int = Field(ge=0)
    end: int


class LabelledText(BaseModel):
    """One text with its labels. A pattern that is not in `labels` is labelled 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    group: str
    """What must not be split between training and testing: `<family>/<scenario>`, or the condition of a log's sample."""
    text: str = Field(min_length=1)
    labels: frozenset[str]
    hard_negative_for: frozenset[str] = frozenset()
    """Patterns that are absent and close by: mentioned and rejected, somebody else's, or the same words in another sense."""
    spans: tuple[Span, ...] | None = None
    """Where each label stands; None where the whole text carries it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels & self.hard_negative_for:
            raise ValueError(f"{self.id} has a label that it is also a hard negative for")
        if self.spans is not None and {span.pattern for span in self.spans} != self.labels:
            raise ValueError(f"the spans of {self.id} do not carry its labels")
        return self


class Passes(BaseModel):
    """The two labelling passes over a text, before they were settled into `labels`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    pass_a: frozenset[str]
    pass_b: frozenset[str]


@cache
def load_labelled(part: Literal["all", "passages", "transcripts"] = "all") -> tuple[LabelledText, ...]:
    """The labelled texts, in the order of the files: all, the passages, or the transcripts."""
    if part not in PARTS:
        raise UnknownNameError("part of the labelled set", part, PARTS)
    files = sorted(LABELLED.glob("passages/*.jsonl")) if part != "transcripts" else []
    files += [LABELLED / "transcripts.jsonl"] if part != "passages" else []
    return tuple(LabelledText.model_validate_json(line) for file in files for line in _lines(file))


def load_passes() -> tuple[Passes, ...]:
    """Both labelling passes over every text of the set."""
    return tuple(Passes.model_validate_json(line) for line in _lines(LABELLED / "passes.jsonl"))


def family(text: LabelledText) -> str:
    """The family of a text of the set: mail, coding, lab, finance or care."""
    return text.group.partition("/")[0]


def set_hash(texts: Sequence[LabelledText]) -> str:
    """SHA-256 of texts and labels, whatever their order."""
    rows = sorted((json.loads(text.model_dump_json()) for text in texts), key=lambda row: str(row["id"]))
    for row in rows:
        row["labels"].sort()
        row["hard_negative_for"].sort()
    return sha256_of_value(rows)


def _lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines()
