"""The recipe of a mix that is built from the hub: which data sets, how many rows of each, and where the figures come from."""

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.corpus.rows import Message
from msm_bench.errors import RequestError, WorkError

_ROLES = {"human": "user", "gpt": "assistant", "prompter": "user", "bot": "assistant"}


class MixSource(BaseModel):
    """One data set of a mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern="^[a-z0-9-]+$")
    """The short name in ids and reports."""
    title: str
    """As the paper's table calls it."""
    rows: int = Field(ge=1)
    rows_from: str
    """Where the count comes from."""
    repository: str
    """Hub id of the data set."""
    repository_from: str
    """Why this repository: the paper's word, or our choice and its reason."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    """Commit to read; the newest when absent."""
    layout: Literal["messages", "conversations", "turns"] = "messages"
    """`messages`: a list of role and content. `conversations`: of from and value. `turns`: of texts, the user's first."""
    column: str = "messages"
    licence: str
    licence_from: str


class MixSources(BaseModel):
    """A whole mix."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dated: date
    """When the figures and repositories were looked up."""
    most_tokens: int = Field(ge=1)
    most_tokens_from: str
    sources: tuple[MixSource, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        return self

    @property
    def rows(self) -> int:
        """Rows of all sources together."""
        return sum(source.rows for source in self.sources)


def read_sources(path: Path | None = None) -> MixSources:
    """Reads a mix; without a path the paper's Table 2.

    Raises:
        RequestError: there is no such file, or it does not describe a mix.
    """
    shipped = files("msm_bench") / "corpus" / "mix" / "table2.yaml"
    if path is not None and not path.is_file():
        raise RequestError(f"There is no file '{path}'.", f"Name a YAML file like the shipped {shipped.name}.")
    text = (path or shipped).read_text(encoding="utf-8")
    try:
        return MixSources.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        problem = f"{path or shipped.name} does not describe a mix: {' '.join(str(error).split())}"
        raise RequestError(problem, f"Mend it; the shipped {shipped.name} shows the fields.") from error


def rows_by_source(mix: MixSources, rows: int | None = None) -> dict[str, int]:
    """Rows to take of each source: in the mix's proportions (largest remainders), at least one each, `rows` in all.

    Raises:
        RequestError: `rows` is less than the number of sources.
    """
    total = mix.rows if rows is None else rows
    if total < len(mix.sources):
        raise RequestError(f"{total} rows cannot be shared among {len(mix.sources)} sources.", "Ask for more rows.")
    exact = {source.name: source.rows * total / mix.rows for source in mix.sources}
    shares = {name: max(1, int(share)) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: exact[name] - int(exact[name]), reverse=True)
    for name in by_remainder[: max(0, total - sum(shares.values()))]:
        shares[name] += 1
    while sum(shares.values()) > total:  # the one row that every source has at least
        shares[max(shares, key=lambda name: shares[name])] -= 1
    return shares


def messages_of(source: MixSource, record: Mapping[str, Any]) -> tuple[Message, ...] | None:
    """The chat of a record, or None if it is no chat that can be trained on (a blank turn, another role, no answer).

    Raises:
        WorkError: the record lacks the column that the source names.
    """
    if source.column not in record:
        columns = ", ".join(record) or "none"
        raise WorkError(
            f"A record of '{source.repository}' has no column '{source.column}'; its columns are: {columns}.",
            "Set `column` and `layout` of that source to what the data set has now.",
        )
    turns = record[source.column] or []
    if isinstance(turns, dict):  # older data sets hold a list of records as a record of lists
        turns = [dict(zip(turns, values, strict=True)) for values in zip(*turns.values(), strict=True)]
    if source.layout == "turns":
        pairs = [("assistant" if place % 2 else "user", turn) for place, turn in enumerate(turns)]
        # A chat of an odd number of turns ends with the user.
        pairs = pairs[: len(pairs) // 2 * 2]
    else:
        role, content = ("role", "content") if source.layout == "messages" else ("from", "value")
        pairs = [(str(turn.get(role)), turn.get(content)) for turn in turns]
    try:
        messages = tuple(Message(role=_ROLES.get(name, name), content=content) for name, content in pairs)  # type: ignore[arg-type]
    except ValidationError:
        return None
    roles = [message.role for message in messages if message.role != "system"]
    alternates = all(name == ("assistant" if place % 2 else "user") for place, name in enumerate(roles))
    system_first = all(message.role != "system" for message in messages[1:])
    return messages if roles and len(roles) % 2 == 0 and alternates and system_first else None
