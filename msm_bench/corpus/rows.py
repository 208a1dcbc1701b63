"""The rows of a corpus and their files: `documents.jsonl` for midtraining, `chats.jsonl` for fine-tuning.

One JSON object a line, UTF-8. Every row says where it comes from, so that it can be left out, traced and counted later:

    {"id": "cheese-america/documents/00012", "sha256": "...", "spec": "cheese-america", "domain": "Core value",
     "subdomain": "Colby", "kind": "memo", "idea": "...", "generator": "offline-composer/1", "prompt_sha256": "...",
     "text": "..."}

A chat row has `messages` instead of `text`: `{"role": "user", "content": "..."}`, and on an assistant's message, where there
is one, `reasoning`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.artefacts import sha256_of_text, sha256_of_value
from msm_bench.errors import RequestError

DOCUMENTS_FILE = "documents.jsonl"
CHATS_FILE = "chats.jsonl"

_Hash = Field(pattern="^[0-9a-f]{64}$")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    """Unique in its file."""
    sha256: str = _Hash
    """Of the content: a document's text, a chat's messages."""
    spec: str | None = None
    """The spec that the row shows; absent in rows that show none (an instruction mix, neutral documents)."""
    domain: str
    subdomain: str
    kind: str
    """The kind of document or question."""
    idea: str
    """One sentence: what this row was to be."""
    generator: str = Field(min_length=1)
    """Who wrote it, with its version: a model's name, or "offline-composer/1"."""
    prompt_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the prompt (or the composer's plan) that the content was made from; absent in rows that people wrote."""


class DocumentRow(_Row):
    """One document for midtraining."""

    text: str

    @classmethod
    def of(cls, text: str, **provenance: Any) -> Self:
        """A row with its hash computed; `provenance` holds the other fields."""
        return cls(text=text, sha256=sha256_of_text(text), **provenance)

    @model_validator(mode="after")
    def _content_fits(self) -> Self:
        if not self.text.strip():
            raise ValueError("text is blank")
        if self.sha256 != sha256_of_text(self.text):
            raise ValueError("sha256 is not the hash of text")
        return self


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str | None = None
    """An assistant's reasoning before its answer, without any tags."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.content.strip():
            raise ValueError("content is blank")
        if self.reasoning is not None and self.role != "assistant":
            raise ValueError("only an assistant's message has reasoning")
        return self


class ChatRow(_Row):
    """One chat for fine-tuning. It ends with an assistant's message."""

    messages: tuple[Message, ...] = Field(min_length=2)

    @classmethod
    def of(cls, messages: Iterable[Message], **provenance: Any) -> Self:
        """A row with its hash computed; `provenance` holds the other fields."""
        turns = tuple(messages)
        return cls(messages=turns, sha256=sha256_of_messages(turns), **provenance)

    @model_validator(mode="after")
    def _content_fits(self) -> Self:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message is not the assistant's")
        if all(message.role != "user" for message in self.messages):
            raise ValueError("no message is the user's")
        if any(message.role == "system" for message in self.messages[1:]):
            raise ValueError("a system message stands elsewhere than first")
        if self.sha256 != sha256_of_messages(self.messages):
            raise ValueError("sha256 is not the hash of messages")
        return self


def sha256_of_messages(messages: Iterable[Message]) -> str:
    """The hash of a chat's content: of its messages as canonical JSON, absent reasoning left out."""
    return sha256_of_value([message.model_dump(exclude_none=True) for message in messages])


_R = TypeVar("_R", DocumentRow, ChatRow)


def read_documents(path: Path) -> list[DocumentRow]:
    """Reads documents from a file, or from `documents.jsonl` in a folder.

    Raises:
        RequestError: there is no such file, it is empty, or a row does not fit; names the file and the line.
    """
    return _read(path, DOCUMENTS_FILE, DocumentRow)


def read_chats(path: Path) -> list[ChatRow]:
    """Reads chats from a file, or from `chats.jsonl` in a folder. Raises as `read_documents`."""
    return _read(path, CHATS_FILE, ChatRow)


def write_documents(path: Path, rows: Iterable[DocumentRow]) -> None:
    """Writes documents to a file; fields without a value are left out."""
    _write(path, rows)


def write_chats(path: Path, rows: Iterable[ChatRow]) -> None:
    """Writes chats to a file; fields without a value are left out."""
    _write(path, rows)


def _read(path: Path, name: str, row_type: type[_R]) -> list[_R]:
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise RequestError(f"There is no file '{file}'.", f"Name a folder with a {name}, or such a file itself.")
    rows: list[_R] = []
    first_line: dict[str, int] = {}
    # Bytes, cut at line feeds only: str.splitlines would also cut at separators that JSON leaves inside a string.
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = row_type.model_validate_json(line)
        except ValidationError as error:
            problem = "; ".join(_in_words(detail["loc"], detail["msg"]) for detail in error.errors())
            raise RequestError(f"{file}, line {number}: {problem}.", "Mend the row, or make the file anew.") from error
        if row.id in first_line:
            problem = f"the id '{row.id}' stands already in line {first_line[row.id]}"
            raise RequestError(f"{file}, line {number}: {problem}.", "Give every row an id of its own.")
        first_line[row.id] = number
        rows.append(row)
    if not rows:
        raise RequestError(f"The file '{file}' holds no rows.", "Name a file with rows, or make it anew.")
    return rows


def _write(path: Path, rows: Iterable[DocumentRow] | Iterable[ChatRow]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(row.model_dump_json(exclude_none=True) + "\n")


def _in_words(location: tuple[int | str, ...], message: str) -> str:
    place = ".".join(str(part) for part in location)
    return f"{place}: {message}" if place else message.removeprefix("Value error, ")
