"""The store: folders that are whole or absent, states of unfinished work, claims."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from msm_bench.errors import RequestError, WorkError
from msm_bench.experiment import store as stores
from msm_bench.experiment.store import STORED_FILE, Store


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield f"file://{tmp_path / 'store'}"
        return
    import fsspec

    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    filesystem = fsspec.filesystem("memory")
    if filesystem.exists(name):
        filesystem.rm(name, recursive=True)


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        file = path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def content(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_a_folder_comes_back_as_it_was(url: str, tmp_path: Path) -> None:
    store = Store(url)
    made = folder(tmp_path / "made", a="1", deep__er__b="2")
    assert not store.has("checkpoints/x") and not store.get("checkpoints/x", tmp_path / "back")
    store.put(made, "checkpoints/x")
    assert Store(url).has("checkpoints/x") and store.get("checkpoints/x", tmp_path / "back")
    assert content(tmp_path / "back") == content(made)


def test_a_folder_without_its_listing_is_absent(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url)

    def die(name: str, text: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store, "write_text", die)
        store.put(folder(tmp_path / "made", a="1", b="2"), "x")
    assert not store.has("x") and not store.get("x", tmp_path / "back") and not (tmp_path / "back").exists()
    store.put(tmp_path / "made", "x")
    assert store.get("x", tmp_path / "back") and content(tmp_path / "back") == {"a": "1", "b": "2"}


def test_what_is_there_is_not_replaced(url: str, tmp_path: Path) -> None:
    store = Store(url)
    store.put(folder(tmp_path / "one", a="1"), "x")
    store.put(folder(tmp_path / "two", a="2"), "x")
    assert store.get("x", tmp_path / "back") and content(tmp_path / "back") == {"a": "1"}


def test_damage_is_found_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path / 'store'}")
    store.put(folder(tmp_path / "made", a="1"), "x")
    (tmp_path / "store" / "x" / "a").write_text("2")
    with pytest.raises(WorkError, match="damaged"):
        store.get("x", tmp_path / "back")
    (tmp_path / "store" / "x" / "a").unlink()
    with pytest.raises(WorkError, match="damaged"):
        store.get("x", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (tmp_path / "store" / "x" / STORED_FILE).write_text("{")
    with pytest.raises(WorkError, match="cannot be read"):
        store.has("x")


def test_the_newest_state_counts_and_two_are_kept(url: str, tmp_path: Path) -> None:
    store = Store(url)
    assert store.state_detail("x") is None and not store.get_state("x", tmp_path / "back")
    for number in range(1, 5):
        store.put_state(folder(tmp_path / "work", a=str(number), lock="held"), "x", f"{number} updates")
    assert store.state_detail("x") == "4 updates" and store._states("x") == [3, 4]
    folder(tmp_path / "back", old="old")
    assert store.get_state("x", tmp_path / "back") and content(tmp_path / "back") == {"a": "4"}
    assert not list(tmp_path.glob(".work*"))
    store.remove_states("x")
    assert store.state_detail("x") is None


def test_a_claim_is_held_by_one_at_a_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_BEAT_SECONDS", 0.1)
    inside, most, done = [0], [0], []

    def work() -> None:
        with Store(url).claim("x"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.3)
            inside[0] -= 1
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 4 and most[0] == 1


def test_the_claim_of_the_dead_is_taken_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(stores, "_SILENT_SECONDS", 0.5)
    Store(url).write_text("claims/x", json.dumps({"owner": "nobody", "beat": 0}))
    since = time.monotonic()
    with Store(url).claim("x"):
        assert time.monotonic() - since >= 0.5
    assert Store(url).read_text("claims/x") is None


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(RequestError, match="no URL of a store"):
        Store("nowhere://bucket/study")
