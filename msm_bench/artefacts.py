"""Artefacts: folders that are whole or absent, each with a `manifest.json` that says what it is and what it came from.

    with writing_folder(out) as folder:                 # a hidden folder beside `out`
        write_documents(folder / "documents.jsonl", rows)
        seal(folder, kind="documents", parents={"spec": spec_id}, settings={"n": 400}, seed=0)
    # here `out` stands, complete and flushed to disk; had anything raised, nothing would

    <out>/
      manifest.json     kind, id, parents, settings, seed, versions, cost, and the size and hash of every other file
      ...               the files

The `id` is a content hash: of the kind, the parents' ids, the settings, the seed and the files, and of nothing that differs
between two runs of the same work (versions, cost, time).
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from msm_bench import __version__
from msm_bench.errors import CacheError, RequestError, WorkError

MANIFEST_FILE = "manifest.json"
FORMAT = 1
BUILDING = ".building-"
"""What the name of an unfinished folder starts with."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def sha256_of_bytes(content: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_text(text: str) -> str:
    """SHA-256 of the UTF-8 bytes of a text."""
    return sha256_of_bytes(text.encode("utf-8"))


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Raises `ValueError` for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of_value(value: Any) -> str:
    """SHA-256 of a JSON value in its canonical form."""
    return sha256_of_text(canonical_json(value))


class StoredFile(BaseModel):
    """One file of an artefact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    """Bytes."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What an artefact is (`manifest.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    kind: str = Field(min_length=1)
    """What is in the folder: "documents", "chats", "checkpoint", ..."""
    id: str = Field(pattern="^[0-9a-f]{64}$")
    """Content hash, see `content_id`."""
    parents: dict[str, str] = {}
    """Role of each parent ("spec", "documents", "base") to its content hash."""
    settings: dict[str, Any] = {}
    """What was asked for; JSON values only."""
    seed: int | None = None
    versions: dict[str, str] = {}
    """Package to version, those that had a hand in the content."""
    cost: dict[str, float] = {}
    """What it cost, the unit in the name: "seconds", "input_tokens", "dollars". What was not measured is absent."""
    created: datetime
    files: dict[str, StoredFile]
    """Relative path (with forward slashes) of every file but the manifest."""

    @model_validator(mode="after")
    def _id_fits(self) -> Self:
        found = content_id(self.kind, self.parents, self.settings, self.seed, self.files)
        if self.id != found:
            raise ValueError(f"id is not the hash of the content, which is {found}")
        return self


def content_id(
    kind: str, parents: Mapping[str, str], settings: Mapping[str, Any], seed: int | None, files: Mapping[str, StoredFile]
) -> str:
    """The content hash of an artefact: equal work gives equal ids, whenever and wherever it was done."""
    hashes = {name: stored.sha256 for name, stored in files.items()}
    content = {"kind": kind, "parents": dict(parents), "settings": dict(settings), "seed": seed, "files": hashes}
    return sha256_of_value(content)


def installed_versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of this package and of the named packages; one that is not installed is absent."""
    found = {"python": platform.python_version(), "msm-bench": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def stored_files(folder: Path, leave_out: str | None = None) -> dict[str, StoredFile]:
    """Every file of a folder and its sub-folders, by relative path with forward slashes, but for one at its top."""
    return {
        path.relative_to(folder).as_posix(): StoredFile(size=path.stat().st_size, sha256=sha256_of_file(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).as_posix() != leave_out
    }


def seal(
    folder: Path,
    kind: str,
    *,
    parents: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    packages: Iterable[str] = (),
    cost: Mapping[str, float] | None = None,
) -> Manifest:
    """Hashes every file of a folder and writes the folder's manifest. Call it last, inside `writing_folder`.

    Args:
        folder: The folder with its final files; sub-folders are counted.
        kind: What the folder holds.
        parents: Role of each parent to its content hash.
        settings: What was asked for; JSON values only.
        seed: The seed, where there was one.
        packages: Packages whose versions belong into the manifest.
        cost: What it cost, by name with its unit.
    """
    files = stored_files(folder, leave_out=MANIFEST_FILE)
    # Through JSON once, so that the id is computed from what a reader will see (a tuple comes back as a list).
    plain = json.loads(canonical_json(dict(settings or {})))
    manifest = Manifest(
        kind=kind,
        id=content_id(kind, parents or {}, plain, seed, files),
        parents=dict(parents or {}),
        settings=plain,
        seed=seed,
        versions=installed_versions(packages),
        cost=dict(cost or {}),
        created=datetime.now(UTC).replace(microsecond=0),
        files=files,
    )
    write_text_atomically(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artefact's folder.

    Raises:
        RequestError: there is no such folder, it has no manifest, or the manifest does not fit.
    """
    if not folder.is_dir():
        raise RequestError(f"There is no folder '{folder}'.", "Name the folder of an artefact.")
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise RequestError(f"The folder '{folder}' has no {MANIFEST_FILE}.", "Name a folder that this package wrote.")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise RequestError(f"{path} does not fit: {problems}.", "Make the artefact anew.") from error


def verify(folder: Path) -> Manifest:
    """The manifest of an artefact whose every byte has been hashed and found right.

    Raises:
        RequestError: as `read_manifest`.
        WorkError: a file is missing or is not the one that the manifest names.
    """
    manifest = read_manifest(folder)
    for name, stored in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise WorkError(f"The artefact '{folder}' has lost its file {name}.", "Make the artefact anew.")
        if path.stat().st_size != stored.size or sha256_of_file(path) != stored.sha256:
            raise WorkError(f"{path} is not the file that its manifest names.", "Restore it, or make the artefact anew.")
    return manifest


def refuse_existing(out: Path) -> None:
    """Raises `RequestError` where something already stands at `out`; an empty folder may stand there."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise RequestError(f"'{out}' exists already.", "Name another folder, or remove this one first.")


@contextmanager
def writing_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes its place at `out` when the block ends, or is gone when the block raises.

    Args:
        out: The final place; parents are made. Nothing, or an empty folder, may stand there.

    Raises:
        RequestError: something stands at `out`, at the start or by the end.
        CacheError: the disk is full or the place cannot be written to.
    """
    out = out.expanduser().absolute()
    refuse_existing(out)
    with disk_errors(f"'{out.parent}'"), building_folder(out) as folder:
        yield folder


@contextmanager
def building_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """As `writing_folder`, with errors of the disk as they come.

    Args:
        out: The final place, absolute.
        replace: What stands there is put aside and removed at the end. For callers that hold a lock.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{BUILDING}{out.name}-{socket.gethostname()}-"
    _remove_left_by_dead(out.parent, prefix)
    building = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=out.parent))
    replaced = building.with_name(f"{building.name}-replaced")
    try:
        building.chmod(0o777 & ~_umask())
        yield building
        for path in [*building.rglob("*"), building]:
            flush(path)
        if replace and out.exists():
            out.rename(replaced)
        try:
            building.rename(out)
        except OSError:
            # Somebody else was first; rename never replaces a folder that holds something.
            refuse_existing(out)
            raise
        flush(out.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a text file so that a reader finds the old content or the new, never a part. UTF-8, newlines as given."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        flush(path.parent)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _remove_left_by_dead(parent: Path, prefix: str) -> None:
    for left in parent.iterdir():
        owner = left.name.removeprefix(prefix).split("-")[0]
        if left.name.startswith(prefix) and owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _umask() -> int:
    # mkdtemp and mkstemp make private files; what is shared with colleagues follows the user's own mask.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def flush(path: Path) -> None:
    """Puts a file's content, or a folder's list of names, on the disk."""
    if path.is_symlink() or (path.is_dir() and os.name == "nt"):  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_errno(error: BaseException) -> int | None:
    """The error number when an error says that a disk is full or cannot be written to, else None."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, SafetensorError):
        # safetensors writes through Rust, which puts the number into the text: "... (os error 28)".
        found = re.search(r"os error (\d+)", str(error))
        number = int(found.group(1)) if found else None
    return number if number in _FULL | _UNWRITABLE else None


@contextmanager
def disk_errors(
    place: str,
    full: str = "Free space there, or name another folder.",
    unwritable: str = "Name a folder that you can write to.",
) -> Iterator[None]:
    """Turns a full or unwritable disk inside the block into a `CacheError`.

    Args:
        place: What is written to, as the message names it, in lower case.
        full: The mend for a full disk.
        unwritable: The mend for a place that cannot be written to.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = disk_errno(error)
        if number is None:
            raise
        if number in _FULL:
            raise CacheError(f"The disk of {place} is full.", full) from error
        raise CacheError(f"{_upper(place)} cannot be written to ({os.strerror(number)}).", unwritable) from error


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
