"""Cheap checks and content hashes of safetensors files."""

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msm_bench.checkpoints import store
from msm_bench.errors import CorruptWeightsError

_MEND = "Copy or download the file again."


def sha256_of_weights(paths: list[Path]) -> str:
    """One hash for a model's weights.

    Args:
        paths: The safetensors files, one or several shards.

    Returns:
        The file's own SHA-256 when there is one file, so that it can be compared with what a hub shows; for
        shards the SHA-256 of the sorted lines "<name> <sha256>"; each file's from `store.sha256_of_large`.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        hashes = dict(zip([path.name for path in paths], pool.map(store.sha256_of_large, paths), strict=True))
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_safetensors(path: Path) -> None:
    """Open the header and compare the file's size with what the header promises; the tensors are not read.

    Raises:
        CorruptWeightsError: The header cannot be read, or bytes are missing or left over.
    """
    from safetensors import SafetensorError, safe_open

    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
    if start.startswith(b"version "):
        raise CorruptWeightsError(
            f"'{path}' is a Git LFS pointer, not weights.", "Run 'git lfs pull' in the folder it came from."
        )
    if len(start) == 8 and size < 8 + struct.unpack("<Q", start)[0]:
        raise CorruptWeightsError(f"'{path}' is cut off inside its header ({size} bytes).", _MEND)
    try:
        with safe_open(path, framework="pt") as tensors:
            tensors.keys()
    except SafetensorError as error:
        raise CorruptWeightsError(f"'{path}' is not a whole safetensors file: {error}.", _MEND) from error
