"""Folders that are whole or absent: a cache that several processes may fill at once.

A folder is built beside its final place under one lock, gets an `identity.json` with the size and hash of every
file, is flushed to disk and then renamed. Whatever a killed build leaves starts with `.building-` and is
removed by the next build, which holds the lock and so knows that nobody works on it.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from msm_bench.artefacts import sha256_of_file
from msm_bench.errors import CacheError

IDENTITY_FILE = "identity.json"
WEIGHTS_FILE = "model.safetensors"
_BUILDING = ".building-"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
# Folders whose every byte has been hashed by this process, with their identity at that time.
_hashed: dict[Path, "Identity"] = {}


class StoredFile(BaseModel, frozen=True):
    """One file of a stored folder."""

    size: int
    sha256: str


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


def damage(folder: Path) -> str | None:
    """What is wrong with a stored folder, or None when it is whole.

    Sizes are compared on every call; every byte is hashed on the first call for this folder in a process.
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
    if _hashed.get(folder) != identity:
        for name, stored in identity.files.items():
            if sha256_of_file(folder / name) != stored.sha256:
                return f"{name} does not match its checksum"
        _hashed[folder] = identity
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
    with _as_cache_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / "build.lock")
        if not _try(lock):
            waiting()
            lock.acquire()
        try:
            for left in root.glob(f"{_BUILDING}*"):
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
    temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=root))
    try:
        whole, scratch = temporary / "whole", temporary / "scratch"
        whole.mkdir()
        scratch.mkdir()
        source, origin = fill(whole, scratch)
        files = {
            path.name: StoredFile(size=path.stat().st_size, sha256=sha256_of_file(path)) for path in sorted(whole.iterdir())
        }
        identity = Identity(name=name, source=source, origin=origin, sha256=files[WEIGHTS_FILE].sha256, files=files)
        (whole / IDENTITY_FILE).write_text(identity.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in [*whole.iterdir(), whole]:
            _flush(path)
        final = root / folder
        if final.exists():
            final.rename(temporary / "replaced")
        whole.rename(final)
        _flush(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _hashed[final] = identity
    return final


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except TimeoutError:  # filelock.Timeout is one
        return False
    return True


def disk_errno(error: BaseException) -> int | None:
    """The error number when an error says that a disk is full or cannot be written to, else None."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, SafetensorError):
        # safetensors writes through Rust, which puts the number into the text: "... (os error 28)".
        found = re.search(r"os error (\d+)", str(error))
        number = int(found.group(1)) if found else None
    return number if number in _FULL | _UNWRITABLE else None


@contextmanager
def _as_cache_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = disk_errno(error)
        if number is None:
            raise
        if number in _FULL:
            raise CacheError(
                f"The disk of the cache folder '{root}' is full.",
                "Free space there, or set MSM_BENCH_CACHE to a folder with 1 GB free.",
            ) from error
        raise CacheError(
            f"The cache folder '{root}' cannot be written to ({os.strerror(number)}).",
            "Set MSM_BENCH_CACHE to a folder that you can write to, with 1 GB free.",
        ) from error
