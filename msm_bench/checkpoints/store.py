"""Folders that are whole or absent: a cache that several processes may fill at once.

A folder is built as every artefact is (`artefacts.building_folder`), under one lock, with an `identity.json` that names the
size and hash of every file. Whatever a killed build leaves starts with `.building-` and is removed by the next build, which
holds the lock and so knows that nobody works on it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import platformdirs
from filelock import FileLock
from pydantic import BaseModel, ValidationError

from msm_bench.artefacts import (
    BUILDING,
    StoredFile,
    building_folder,
    disk_errno,
    disk_errors,
    sha256_of_file,
    sha256_of_value,
    stored_files,
    write_text_atomically,
)

__all__ = ["Identity", "build", "cache_root", "damage", "disk_errno", "read_identity", "sha256_of_large", "writing"]

IDENTITY_FILE = "identity.json"
WEIGHTS_FILE = "model.safetensors"
_LARGE = 2**26
"""Bytes of a file that is not read again for its hash by every process: 1.5 GB a second are 11 s for a model of 8B."""


class Identity(BaseModel, frozen=True):
    """What a stored folder holds and where it came from (`identity.json`)."""

    name: str
    source: str
    origin: dict[str, str]
    sha256: str
    files: dict[str, StoredFile]


def cache_root() -> Path:
    """`MSM_BENCH_CACHE`, or the user's cache folder of this platform."""
    chosen = os.environ.get("MSM_BENCH_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("msm-bench")


def sha256_of_large(path: Path) -> str:
    """SHA-256 of a file that may be large: read once in a process, and from 64 MB on once on a machine.

    The hash is kept in the cache for as long as the file system says that it is the same file, unchanged.
    """
    found = path.stat()
    # Whoever writes to a file, or puts another in its place, cannot keep its time of change (ctime) or its number.
    return _remembered(path.resolve(), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino)


@lru_cache(maxsize=512)
def _remembered(path: Path, size: int, *state: int) -> str:
    if size < _LARGE:
        return sha256_of_file(path)
    kept = cache_root() / "weight-hashes" / sha256_of_value([str(path), size, *state])
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


def damage(folder: Path) -> str | None:
    """What is wrong with a stored folder, or None when it is whole.

    Sizes and hashes are compared on every call; a file that is as it was is not read again for it.
    """
    try:
        identity = Identity.model_validate_json((folder / IDENTITY_FILE).read_bytes())
    except OSError:
        return f"{IDENTITY_FILE} is missing"
    except ValidationError:
        return f"{IDENTITY_FILE} cannot be read"
    for name, stored in identity.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != stored.size:
            return f"{name} has {path.stat().st_size} bytes instead of {stored.size}"
    for name, stored in identity.files.items():
        if sha256_of_large(folder / name) != stored.sha256:
            return f"{name} does not match its checksum"
    return None


def read_identity(folder: Path) -> Identity:
    """The identity of a whole folder."""
    return Identity.model_validate_json((folder / IDENTITY_FILE).read_bytes())


@contextmanager
def writing(root: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of a cache folder, with what killed builds left there removed.

    Args:
        root: The cache folder; made when absent.
        waiting: Called once when another process holds the lock.

    Raises:
        CacheError: The folder cannot be written to or its disk is full, now or inside the block.
    """
    mend = "set MSM_BENCH_CACHE to a folder with 1 GB free."
    unwritable = "Set MSM_BENCH_CACHE to a folder that you can write to, with 1 GB free."
    with disk_errors(f"the cache folder '{root}'", f"Free space there, or {mend}", unwritable):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / "build.lock")
        if not _try(lock):
            waiting()
            lock.acquire()
        try:
            for left in root.glob(f"{BUILDING}*"):
                shutil.rmtree(left)
            yield
        finally:
            lock.release()


def build(root: Path, folder: str, name: str, fill: Callable[[Path, Path], tuple[str, dict[str, str]]]) -> Path:
    """Build a folder and put it in its place in one step; call inside `writing`.

    Args:
        root: The cache folder.
        folder: The folder's final name; one that stands there already is replaced.
        name: The model's name, for the identity.
        fill: Gets (folder to fill with the final files, scratch folder on the same disk), both existing, and
            returns (source, origin) for the identity.

    Returns:
        The finished folder. When `fill` raises, nothing of the build is left.
    """
    final = root / folder
    with building_folder(final, replace=True) as whole, tempfile.TemporaryDirectory(prefix=BUILDING, dir=root) as scratch:
        source, origin = fill(whole, Path(scratch))
        files = stored_files(whole)
        identity = Identity(name=name, source=source, origin=origin, sha256=files[WEIGHTS_FILE].sha256, files=files)
        (whole / IDENTITY_FILE).write_text(identity.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return final


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except TimeoutError:  # filelock.Timeout is one
        return False
    return True
