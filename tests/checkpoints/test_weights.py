"""Hashes of weights: right, and read again only when a file may have changed."""

import os
from pathlib import Path

import pytest

from msm_bench.artefacts import sha256_of_bytes
from msm_bench.checkpoints import store
from msm_bench.checkpoints.weights import sha256_of_weights


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read for their hash; every file counts as large."""
    names: list[str] = []
    plain = store.sha256_of_file

    def counted(path: Path) -> str:
        names.append(path.name)
        return plain(path)

    monkeypatch.setenv("MSM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_LARGE", 1)
    monkeypatch.setattr(store, "sha256_of_file", counted)
    store._remembered.cache_clear()
    return names


def another_process() -> None:
    store._remembered.cache_clear()


def test_a_large_file_is_read_once_on_a_machine(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    assert sha256_of_weights([path]) == sha256_of_bytes(b"one")
    another_process()
    assert sha256_of_weights([path]) == sha256_of_bytes(b"one") and read == ["model.safetensors"]


def test_other_bytes_of_the_same_size_and_time_are_seen(tmp_path: Path, read: list[str]) -> None:
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    path.write_bytes(b"one")
    sha256_of_weights([path])
    found = path.stat()
    other.write_bytes(b"two")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == found.st_mtime_ns
    assert sha256_of_weights([path]) == sha256_of_bytes(b"two") and len(read) == 2


@pytest.mark.parametrize("content", ["", "0" * 63, "x" * 64, "é"])
def test_a_damaged_note_is_not_believed(content: str, tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    sha256_of_weights([path])
    (note,) = (tmp_path / "cache" / "weight-hashes").iterdir()
    note.write_text(content)
    another_process()
    assert sha256_of_weights([path]) == sha256_of_bytes(b"one") and len(read) == 2


def test_without_a_place_for_notes_it_is_only_slower(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MSM_BENCH_CACHE", str(tmp_path / "file"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    assert sha256_of_weights([path]) == sha256_of_bytes(b"one")
    another_process()
    assert sha256_of_weights([path]) == sha256_of_bytes(b"one") and len(read) == 2


def test_shards_have_one_hash_whatever_their_order(tmp_path: Path, read: list[str]) -> None:
    shards = [tmp_path / f"model-{n}.safetensors" for n in range(3)]
    for number, path in enumerate(shards):
        path.write_bytes(bytes([number]))
    lines = "".join(f"{path.name} {sha256_of_bytes(path.read_bytes())}\n" for path in shards)
    assert sha256_of_weights(shards) == sha256_of_weights(shards[::-1]) == sha256_of_bytes(lines.encode())
