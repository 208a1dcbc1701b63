"""The questions that a pair is put into, and the answers whose likelihood is compared: `phrasings.yaml`."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

FILE = Path(__file__).parent / "phrasings.yaml"

Kind = Literal["item", "opinion"]


class Phrasing(BaseModel):
    """One question with the sentence that answers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(pattern=r"(?s)\{first\}.*\{second\}")
    answer: str = Field(pattern=r"^[^{}]+ \{choice\}\.$")

    def ask(self, first: str, second: str) -> str:
        """The question about two things, in this order."""
        return _filled(self.question, first, second)

    def sentence(self, choice: str) -> str:
        """The answer that chooses `choice`."""
        return self.answer.replace("{choice}", choice)


class Phrasings(BaseModel):
    """All questions for pairs of one kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    likelihood: tuple[Phrasing, ...] = Field(min_length=1)
    generation: str = Field(pattern=r"(?s)\{first\}.*\{second\}")

    def ask_freely(self, first: str, second: str) -> str:
        """The question that is answered freely."""
        return _filled(self.generation, first, second)


@cache
def phrasings(kind: Kind) -> Phrasings:
    """The phrasings for a kind of pair."""
    return Phrasings.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8"))[kind])


def sha256() -> str:
    """Of the file's bytes."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


def _filled(question: str, first: str, second: str) -> str:
    # Split, not replaced one after the other: a thing could hold a brace.
    before, rest = question.split("{first}")
    between, after = rest.split("{second}")
    return before + first + between + second + after
