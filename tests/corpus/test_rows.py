"""Rows read back as they were written, and a bad row is named by file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_bench.corpus.rows import (
    CHATS_FILE,
    DOCUMENTS_FILE,
    ChatRow,
    DocumentRow,
    Message,
    read_chats,
    read_documents,
    write_chats,
    write_documents,
)
from msm_bench.errors import RequestError


def provenance(number: int) -> dict[str, Any]:
    return {
        "id": f"toy/{number:05d}",
        "spec": "toy",
        "domain": "Core value",
        "subdomain": "Colby",
        "kind": "memo",
        "idea": "A memo.",
        "generator": "test/1",
    }


def document(number: int = 0, text: str = "A text.") -> DocumentRow:
    return DocumentRow.of(text, **provenance(number))


def chat(number: int = 0, reasoning: str | None = None) -> ChatRow:
    turns = [Message(role="user", content="Which?"), Message(role="assistant", content="This.", reasoning=reasoning)]
    return ChatRow.of(turns, **provenance(number))


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=1).filter(str.strip))
def test_any_text_reads_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("rows") / DOCUMENTS_FILE
    rows = [document(0, text), document(1, text + "\u2028\u0085 after separators")]
    write_documents(file, rows)
    assert read_documents(file) == rows


def test_chats_read_back_from_their_folder(tmp_path: Path) -> None:
    rows = [chat(0), chat(1, "Because.")]
    write_chats(tmp_path / CHATS_FILE, rows)
    assert read_chats(tmp_path) == rows
    first, second = (json.loads(line) for line in (tmp_path / CHATS_FILE).read_text(encoding="utf-8").splitlines())
    assert "reasoning" not in first["messages"][1]
    assert second["messages"][1]["reasoning"] == "Because."


def test_the_hash_of_a_chat_counts_its_reasoning() -> None:
    assert chat().sha256 == chat(1).sha256 != chat(0, "Because.").sha256


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "Invalid JSON"),
        ("[]", "valid dictionary|object"),
        (json.dumps(document(7).model_dump(exclude_none=True) | {"text": "Another text."}), "sha256 is not the hash of text"),
        (json.dumps(document(7).model_dump(exclude_none=True) | {"colour": "red"}), "colour"),
        (json.dumps({"text": "bare"}), "id: Field required"),
        (document(0).model_dump_json(exclude_none=True), "the id 'toy/00000' stands already in line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / DOCUMENTS_FILE
    file.write_text(document(0).model_dump_json(exclude_none=True) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(RequestError, match=problem) as raised:
        read_documents(tmp_path)
    assert f"{file}, line 3:" in str(raised.value)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=DOCUMENTS_FILE):
        read_documents(tmp_path)
    (tmp_path / DOCUMENTS_FILE).write_text("\n", encoding="utf-8")
    with pytest.raises(RequestError, match="holds no rows"):
        read_documents(tmp_path)


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ([("user", "Hi."), ("user", "Hello?")], "last message is not the assistant's"),
        ([("assistant", "Hi."), ("assistant", "Hello?")], "no message is the user's"),
        ([("user", "Hi."), ("system", "Be kind."), ("assistant", "Hello.")], "system message stands elsewhere"),
    ],
)
def test_chats_of_the_wrong_shape_are_refused(turns: list[tuple[Any, str]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ChatRow.of([Message(role=role, content=content) for role, content in turns], **provenance(0))


def test_blank_texts_and_a_users_reasoning_are_refused() -> None:
    with pytest.raises(ValueError, match="text is blank"):
        document(0, " \n")
    with pytest.raises(ValueError, match="content is blank"):
        Message(role="user", content=" ")
    with pytest.raises(ValueError, match="only an assistant's"):
        Message(role="user", content="Hi.", reasoning="Hm.")
