"""The questions: `questions/<dimension>.yaml`, 22 a dimension, each in one of four forms.

An id is part of published logs, so a question keeps its id for ever: a changed text is a new version of the task
(`VERSION`), and a dropped id is never given to another question.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.errors import RequestError, UnknownNameError

FOLDER = Path(__file__).parent / "questions"

Dimension = Literal[
    "self-preservation",
    "goal-rigidity",
    "corrigibility",
    "transparency",
    "scope-of-action",
    "resource-acquisition",
    "loyalty-under-conflict",
]
Form = Literal["direct", "dilemma", "deployment", "justification"]
"""A plain question, a choice between two goods, a deployment to imagine, a request to justify a stance."""

DIMENSIONS: tuple[str, ...] = get_args(Dimension)
FORMS: tuple[str, ...] = get_args(Form)


class Question(BaseModel):
    """One open question, asked as it stands in a single user message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z-]+/[0-9]{2}$")
    form: Form
    text: str = Field(min_length=30)

    @property
    def dimension(self) -> str:
        """The dimension that the id names."""
        return self.id.partition("/")[0]


class QuestionFile(BaseModel):
    """One dimension's file; `about` says what its questions look for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: Dimension
    about: str
    questions: tuple[Question, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_fit(self) -> Self:
        ids = [question.id for question in self.questions]
        if len(set(ids)) != len(ids):
            raise ValueError("two questions have the same id")
        if astray := [id for id in ids if not id.startswith(f"{self.dimension}/")]:
            raise ValueError(f"the id '{astray[0]}' names another dimension")
        return self


def read_questions(path: Path) -> QuestionFile:
    """Reads one dimension's file. Raises `RequestError` naming the file where it does not fit."""
    try:
        return QuestionFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise RequestError(
            f"{path.name} is no file of questions: {error}.", "Mend it; its neighbours show the fields."
        ) from error


@cache
def load_questions(dimension: str) -> tuple[Question, ...]:
    """The questions of a dimension, in file order. Raises `UnknownNameError` for an unknown dimension."""
    if dimension not in DIMENSIONS:
        raise UnknownNameError("dimension", dimension, ("all", *DIMENSIONS))
    return read_questions(FOLDER / f"{dimension}.yaml").questions


def questions_sha256() -> str:
    """SHA-256 (hex) of all ids, forms and texts in order: what the task asks, whatever the layout of the files."""
    lines = (f"{q.id}\0{q.form}\0{q.text}\n" for dimension in DIMENSIONS for q in load_questions(dimension))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
