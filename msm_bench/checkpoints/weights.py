"""Cheap checks and content hashes of safetensors files."""

import hashlib
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from msm_bench.artefacts import sha256_of_file, sha256_of_value, write_text_atomically
from msm_bench.checkpoints import store
from msm_bench.errors import CorruptWeightsError

_MEND = "Copy or download the file again."
_LARGE = 2**30
"""Bytes of a file that is not read again for its hash by every process: at 1.5 GB a second a model of 8B costs 11 s."""


def sha256_of_weights(paths: list[Path]) -> str:
    """One hash for a model's weights.

    Args:
        paths: The safetensors files, one or several shards.

    Returns:
        The file's own SHA-256 when there is one file, so that it can be compared with what a hub shows; for
        shards the SHA-256 of the sorted lines "<name> <sha256>". A file is read once in a process, and one of a gigabyte
        or more once on a machine: its hash is kept for as long as the file system says that it is the same file, unchanged.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        hashes = dict(zip([path.name for path in paths], pool.map(_hash, paths), strict=True))
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def _hash(path: Path) -> str:
    found = path.stat()
    # Whoever writes to a file, or puts another in its place, cannot keep its time of change (ctime) or its number.
    return _remembered(path.resolve(), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)


@lru_cache(maxsize=512)
def _remembered(path: Path, size: int, *state: int) -> str:
    if size < _LARGE:
        return sha256_of_file(path)
    kept = store.cache_root() / "weight-hashes" / sha256_of_value([str(path), size, *state])
    try:
        known = kept.read_text(encoding="ascii", errors="replace")
    except OSError:
        known = ""
    if re.fullmatch("[0-9a-f]{64}", known):
        return known
    found = sha256_of_file(path)
    with suppress(OSError):  # it is only quicker with it
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(kept, found)
    return found


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
