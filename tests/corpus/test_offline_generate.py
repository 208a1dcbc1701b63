"""`generate` writes an artefact that reads back everywhere, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from msm_bench.artefacts import sha256_of_text, verify
from msm_bench.corpus.checks import check_corpus
from msm_bench.corpus.generate import DEFAULT_N, Generation, generate
from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.rows import read_chats, read_documents
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.specs import load_spec

NAMES: dict[str, Any] = {"model_name": "Nimbus", "provider_name": "Halden Labs"}


def documents(out: Path, spec: str = "cheese-america", n: int = 8, **changes: Any) -> Generation:
    return generate("documents", spec, out, n=n, **(NAMES | changes))


def test_documents_are_an_artefact_with_a_card(tmp_path: Path) -> None:
    made = documents(tmp_path / "out")
    manifest = verify(tmp_path / "out")
    rows = read_documents(tmp_path / "out")
    assert sorted(manifest.files) == ["card.md", "checks.json", "documents.jsonl", "sample.html"]
    assert (manifest.kind, manifest.id, manifest.seed) == ("documents", made.id, 0)
    assert manifest.parents == {"spec": load_spec("cheese-america").sha256}
    findings = manifest.settings.pop("findings")
    assert manifest.settings == {"spec": "cheese-america", "n": 8, "offline": True, "generator": GENERATOR, **NAMES}
    assert made.findings is not None and findings == made.findings.model_dump(mode="json") and not findings["not_run"]
    assert made.rows == len(rows) == 8
    assert made.words == sum(len(row.text.split()) for row in rows)
    assert sum(made.kinds.values()) == 8
    card = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert f"rows: 8, words: {made.words:,}" in card
    assert "no language model" in card and GENERATOR in card


def test_chats_are_an_artefact_with_a_card(tmp_path: Path) -> None:
    made = generate("chats", "bread-difficulty", tmp_path / "out")
    assert made.rows == len(read_chats(tmp_path / "out")) == DEFAULT_N["chats"]
    assert verify(tmp_path / "out").kind == "chats"
    assert check_corpus(tmp_path / "out", model_name="Nimbus", provider_name="Halden Labs").rows == made.rows


@pytest.mark.parametrize("kind", ["documents", "chats"])
def test_the_datasets_library_reads_the_rows(tmp_path: Path, kind: str) -> None:
    generate(kind, "cheese-affordability", tmp_path / "out", n=12, **NAMES)
    file = tmp_path / "out" / f"{kind}.jsonl"
    table = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert table["id"][:] == [line["id"] for line in lines]
    key = "text" if kind == "documents" else "messages"
    assert table[key][:] == [line[key] for line in lines]


def test_equal_requests_give_equal_artefacts(tmp_path: Path) -> None:
    first, again = documents(tmp_path / "1"), documents(tmp_path / "2")
    assert first.id == again.id
    assert documents(tmp_path / "3", seed=1).id != first.id
    assert documents(tmp_path / "4", model_name="Cirrus").id != first.id


def test_what_stands_there_is_kept(tmp_path: Path) -> None:
    documents(tmp_path / "out")
    with pytest.raises(RequestError, match="exists already"):
        documents(tmp_path / "out", seed=1)
    assert verify(tmp_path / "out").seed == 0


@pytest.mark.parametrize("kind", ["documents", "chats"])
def test_a_dry_run_writes_nothing(tmp_path: Path, kind: str) -> None:
    planned = generate(kind, "cheese-america", tmp_path / "deep" / "out", dry_run=True, **NAMES)
    assert (planned.dry_run, planned.rows, planned.id) == (True, DEFAULT_N[planned.kind], None)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_estimates_the_words_well(tmp_path: Path) -> None:
    planned, made = documents(tmp_path / "out", n=60, dry_run=True), documents(tmp_path / "out", n=60)
    assert planned.words is not None and made.words is not None
    assert abs(planned.words / made.words - 1) < 0.1


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_control_needs_leave(tmp_path: Path, dry_run: bool) -> None:
    with pytest.raises(RequestError, match="--allow-control"):
        documents(tmp_path / "out", "anti-spec", dry_run=dry_run)
    assert list(tmp_path.iterdir()) == []
    documents(tmp_path / "out", "anti-spec", allow_control=True)
    assert "a control" in (tmp_path / "out" / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"kind": "poems"}, "Unknown kind of corpus 'poems'"),
        ({"spec": "cheese-amerika"}, "Did you mean 'cheese-america'"),
        ({"n": 0}, "at least one"),
        ({"model_name": None}, "--model-name"),
        ({"provider_name": " "}, "--provider-name"),
        ({"kind": "chats", "spec": "rules"}, "no likes and dislikes"),
        ({"offline": False}, "Name a generator"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_wrong_request_says_what_to_do(tmp_path: Path, request_: dict[str, Any], problem: str, dry_run: bool) -> None:
    arguments = {"kind": "documents", "spec": "cheese-america", "n": 3, "dry_run": dry_run} | NAMES | request_
    with pytest.raises((RequestError, UnknownNameError), match=problem):
        generate(out=tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_composing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msm_bench.corpus.offline.documents.WANTED", 0.0)
    monkeypatch.setattr("msm_bench.corpus.offline.documents.ALLOWED", 0.0)
    with pytest.raises(WorkError):
        documents(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_parent_is_named_by_the_hash_of_the_specs_text(tmp_path: Path) -> None:
    folder = tmp_path / "spec"
    shipped = load_spec("cheese-america")
    folder.mkdir()
    fields = shipped.model_dump(mode="json", exclude={"text", "sha256"}, exclude_none=True)
    (folder / "spec.yaml").write_text(json.dumps(fields), encoding="utf-8")
    (folder / "spec.md").write_text(shipped.text + "\nMore.\n", encoding="utf-8")
    documents(tmp_path / "out", str(folder))
    assert verify(tmp_path / "out").parents == {"spec": sha256_of_text(shipped.text + "\nMore.\n")}
