"""A checkpoint finds its base again by the name in its record, and only if it is the same base."""

import json
import shutil
from pathlib import Path

import pytest
from trainer_makers import make_model

from msm_bench.checkpoints import resolve, resolving
from msm_bench.checkpoints.manifest import Checkpoint, checkpoint_id
from msm_bench.errors import CorruptWeightsError, ModelNotFoundError


def recorded(folder: Path, found: Checkpoint, name: str) -> None:
    """Write the record with another name for the base."""
    base = found.base.model_copy(update={"name": name, "source": "pypi-gguf-q4_1"})
    same = checkpoint_id(
        found.trainer, base, found.parent, found.recipe["sha256"], found.data, found.updates, found.weights_sha256
    )
    assert same == found.id  # a name is no part of what a checkpoint is
    (folder / "checkpoint.json").write_text(found.model_copy(update={"base": base}).model_dump_json())


@pytest.fixture
def moved(base: Path, midtrained: tuple[Path, Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose configuration names a folder that is gone, and whose record names the embedded model."""
    folder = Path(shutil.copytree(midtrained[0], tmp_path / "moved"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "old-cache" / "smollm2-135m")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    recorded(folder, midtrained[1], "smollm2-135m")

    class Stored:
        source = "pypi-gguf-q4_1"
        sha256 = midtrained[1].base.sha256

    monkeypatch.setattr(resolving, "embedded_model", lambda: base)
    monkeypatch.setattr(resolving.store, "read_identity", lambda folder: Stored)
    return folder


def test_a_base_is_found_by_the_records_name(moved: Path, base: Path) -> None:
    found = resolve(str(moved))
    assert found.path == str(base)
    assert found.identity["base_source"] == "pypi-gguf-q4_1"


def test_another_base_under_the_same_name_is_refused(moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        source = "hub@abc"
        sha256 = "0" * 64

    monkeypatch.setattr(resolving, "embedded_model", lambda: make_model(tmp_path / "other", seed=4))
    monkeypatch.setattr(resolving.store, "read_identity", lambda folder: Other)
    with pytest.raises(CorruptWeightsError, match=r"was trained on other weights .*MSM_BENCH_EMBEDDED_SOURCE"):
        resolve(str(moved))


def test_a_base_that_is_nowhere(moved: Path, midtrained: tuple[Path, Checkpoint], tmp_path: Path) -> None:
    recorded(moved, midtrained[1], str(tmp_path / "also-gone"))
    with pytest.raises(ModelNotFoundError, match=r"base model '.*old-cache.*' of the adapter .* was not found"):
        resolve(str(moved))
