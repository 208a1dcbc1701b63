"""Artefacts are whole or absent, and their ids are hashes of what was done."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from msm_bench.artefacts import (
    MANIFEST_FILE,
    building_folder,
    canonical_json,
    disk_errors,
    read_manifest,
    seal,
    sha256_of_file,
    sha256_of_text,
    verify,
    write_text_atomically,
    writing_folder,
)
from msm_bench.errors import CacheError, RequestError, WorkError

PARENT = "a" * 64


def make(out: Path, text: str = "one\n", **changes: object) -> str:
    arguments: dict[str, object] = {"parents": {"spec": PARENT}, "settings": {"n": 1, "names": ("x", "y")}, "seed": 3}
    with writing_folder(out) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "rows.jsonl").write_text(text, encoding="utf-8")
        return seal(folder, "documents", **(arguments | changes)).id  # type: ignore[arg-type]


def test_a_sealed_folder_reads_back(tmp_path: Path) -> None:
    made = make(tmp_path / "out", packages=["pydantic", "no-such-package"], cost={"seconds": 1.5})
    manifest = verify(tmp_path / "out")
    assert manifest.id == made
    assert manifest.parents == {"spec": PARENT}
    assert manifest.settings == {"n": 1, "names": ["x", "y"]}
    assert set(manifest.versions) == {"python", "msm-bench", "pydantic"}
    assert manifest.cost == {"seconds": 1.5}
    assert list(manifest.files) == ["deep/rows.jsonl"]
    assert manifest.files["deep/rows.jsonl"].sha256 == sha256_of_file(tmp_path / "out" / "deep" / "rows.jsonl")


def test_equal_work_has_equal_ids_and_other_work_others(tmp_path: Path) -> None:
    first = make(tmp_path / "1")
    assert make(tmp_path / "2", cost={"seconds": 99.0}, packages=["pydantic"]) == first
    changed = [
        make(tmp_path / "3", text="two\n"),
        make(tmp_path / "4", seed=4),
        make(tmp_path / "5", settings={"n": 2}),
        make(tmp_path / "6", parents={"spec": "b" * 64}),
    ]
    assert len({first, *changed}) == 5


def test_nothing_is_left_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_artefact_and_is_swept(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from msm_bench.artefacts import writing_folder
with writing_folder(Path({str(tmp_path / "out")!r})) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1])
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.iterdir())) == 1
    make(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "out") as folder:
        make(tmp_path / "out2")
        with writing_folder(tmp_path / "out") as second:
            (second / "file").write_text("second", encoding="utf-8")
            assert folder.is_dir()
        (folder / "file").write_text("first", encoding="utf-8")
        (tmp_path / "out" / "file").unlink()
    assert (tmp_path / "out" / "file").read_text(encoding="utf-8") == "first"


def test_what_stands_there_is_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out" / MANIFEST_FILE).read_bytes()
    with pytest.raises(RequestError, match="exists already"):
        make(tmp_path / "out")
    assert (tmp_path / "out" / MANIFEST_FILE).read_bytes() == before


def test_what_appears_meanwhile_is_not_overwritten_either(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="exists already"), writing_folder(tmp_path / "out"):
        make(tmp_path / "out")
    assert verify(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_may_stand_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert verify(tmp_path / "out")


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="needs a folder that may not be written to")
def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(CacheError, match="cannot be written to"):
        make(tmp_path / "locked" / "out")


def test_a_place_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises((CacheError, RequestError)):
        make(tmp_path / "file" / "out")


def test_a_folder_is_replaced_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out" / MANIFEST_FILE).read_bytes()
    with pytest.raises(ZeroDivisionError), building_folder(tmp_path / "out", replace=True) as folder:
        (folder / "half").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert (tmp_path / "out" / MANIFEST_FILE).read_bytes() == before
    with building_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("new", encoding="utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "full"), "The disk of the cache is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk of the cache is full"),
        (OSError(errno.EROFS, "read-only"), "The cache cannot be written to"),
    ],
)
def test_an_error_of_the_disk_is_named(error: Exception, says: str) -> None:
    with pytest.raises(CacheError, match=says), disk_errors("the cache"):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(FileNotFoundError), disk_errors("the cache"):
        raise FileNotFoundError(errno.ENOENT, "nothing there")


@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    make(tmp_path / "out")
    file = tmp_path / "out" / "deep" / "rows.jsonl"
    if damage == "changed":
        file.write_text("eno\n", encoding="utf-8")
    else:
        file.unlink()
    with pytest.raises(WorkError, match=r"rows\.jsonl"):
        verify(tmp_path / "out")


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "out")
    file = tmp_path / "out" / MANIFEST_FILE
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"seed": 9}), encoding="utf-8")
    with pytest.raises(RequestError, match="not the hash of the content"):
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("what", ["no folder", "no manifest"])
def test_a_folder_without_a_manifest_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "out"
    if what == "no manifest":
        folder.mkdir()
    with pytest.raises(RequestError):
        read_manifest(folder)


def test_a_text_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_text_atomically(file, "one\n")
    write_text_atomically(file, "two\r\n")
    assert file.read_bytes() == b"two\r\n"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_canonical_json_knows_no_order_and_no_nan() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == canonical_json({"a": None, "b": [1, "é"]}) == '{"a":null,"b":[1,"é"]}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))
    assert sha256_of_text("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
