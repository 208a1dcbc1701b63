"""An artefact store that no machine has mounted: any URL that fsspec knows (`s3://bucket/study`, `gs://...`).

Where all machines see one path, that path is the store and nothing here is used. Otherwise every machine works in a folder of
its own, takes what a cell needs from the store, and puts there what it made:

    <url>/<name>/...  <name>/stored.json        a folder; whole once its stored.json is there, which is written last
    <url>/<name>.unfinished/<n>/...             states of unfinished work, each a folder of the same kind; the newest counts
    <url>/claims/<key>                          who makes a cell, with a beat
    <url>/failures/<experiment>/<key>.json

Files are uploaded under a temporary name and then moved, so that a part of one is never taken for the whole; every file that is
taken is compared with the hash in stored.json.
"""

import json
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.artefacts import StoredFile, building_folder, stored_files
from msm_bench.errors import MissingExtraError, RequestError, WorkError

STORED_FILE = "stored.json"
_BEAT_SECONDS = 10.0
_SILENT_SECONDS = 90.0
"""Without a beat for so long, a claim's owner is taken for dead. Each reader measures it with its own clock."""
_KEPT_STATES = 2


class Stored(BaseModel):
    """`stored.json`: what a folder of the store holds."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, StoredFile]
    detail: str = ""
    """How far unfinished work is, in words."""


class Store:
    """A store. Names are paths below it, with forward slashes.

    Args:
        url: Where it is, as fsspec writes it.

    Raises:
        RequestError: fsspec does not know the protocol.
        MissingExtraError: the package that speaks it is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingExtraError(f"'{url}' cannot be reached: {error}.", "Install the package that it names.") from error
        except ValueError as error:
            raise RequestError(f"'{url}' is no URL of a store: {error}.", "Write s3://BUCKET/FOLDER, or a path.") from error
        self.url = url

    def has(self, name: str) -> bool:
        """Whether a folder is there, whole."""
        return self.stored(name) is not None

    def stored(self, name: str) -> Stored | None:
        """What a folder holds, None where it is not there or not whole."""
        text = self.read_text(f"{name}/{STORED_FILE}")
        try:
            return None if text is None else Stored.model_validate_json(text)
        except ValidationError as error:
            raise WorkError(f"{self.url}/{name}/{STORED_FILE} cannot be read.", "Remove that folder of the store.") from error

    def put(self, folder: Path, name: str, detail: str = "") -> None:
        """Uploads a folder. What is there already, whole, stays: equal names are equal work."""
        if self.has(name):
            return
        files = stored_files(folder)
        for relative in files:
            part = self._at(f"{name}/.{uuid.uuid4().hex}.part")
            self._fs.makedirs(str(PurePosixPath(self._at(f"{name}/{relative}")).parent), exist_ok=True)
            self._fs.put_file(str(folder / relative), part)
            self._fs.mv(part, self._at(f"{name}/{relative}"))
        self.write_text(f"{name}/{STORED_FILE}", Stored(files=files, detail=detail).model_dump_json(indent=2) + "\n")

    def get(self, name: str, folder: Path) -> bool:
        """Downloads a folder to where nothing, or an older state of it, stands; False where the store has none.

        Raises:
            WorkError: a file is missing or is not the one that was put there.
        """
        stored = self.stored(name)
        if stored is None:
            return False
        with building_folder(folder.absolute(), replace=True) as building:
            for relative in stored.files:
                target = building / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    self._fs.get_file(self._at(f"{name}/{relative}"), str(target))
            if stored_files(building) != stored.files:
                raise WorkError(f"{self.url}/{name} is damaged.", "Remove that folder of the store; it is then made anew.")
        return True

    def put_state(self, folder: Path, name: str, detail: str) -> None:
        """Uploads a state of unfinished work and removes the ones before the last. The folder may change meanwhile."""
        states = self._states(name)
        number = states[-1] + 1 if states else 1
        copy = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}.state")
        try:
            # Work goes on meanwhile: a file that goes away between two looks makes this state not worth keeping.
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("lock"))
            self.put(copy, _state(name, number), detail)
        except (shutil.Error, FileNotFoundError):
            self._remove(_state(name, number))
            return
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        for old in states[: 1 - _KEPT_STATES]:
            self._remove(_state(name, old))

    def get_state(self, name: str, folder: Path) -> bool:
        """Downloads the newest state of unfinished work; False where there is none."""
        states = self._states(name)
        return bool(states) and self.get(_state(name, states[-1]), folder)

    def state_detail(self, name: str) -> str | None:
        """How far unfinished work is, None where there is none."""
        states = self._states(name)
        stored = self.stored(_state(name, states[-1])) if states else None
        return None if stored is None else stored.detail

    def remove_states(self, name: str) -> None:
        """Removes every state of work that is finished."""
        self._remove(f"{name}.unfinished")

    def read_text(self, name: str) -> str | None:
        """A small file's text, None where it is not there."""
        try:
            return str(self._fs.cat_file(self._at(name)).decode("utf-8"))
        except FileNotFoundError:
            return None

    def write_text(self, name: str, text: str) -> None:
        """Puts a small file there; readers see the old one or the new one."""
        part = self._at(f"{name}.{uuid.uuid4().hex}.part")
        self._fs.makedirs(str(PurePosixPath(part).parent), exist_ok=True)
        self._fs.pipe_file(part, text.encode("utf-8"))
        self._fs.mv(part, self._at(name))

    def remove_text(self, name: str) -> None:
        """Removes a small file if it is there."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Holds the claim to a cell; waits while another process that still gives a beat holds it."""
        name, token, over = f"claims/{key}", uuid.uuid4().hex, threading.Event()
        self._take(name, token)

        def beat() -> None:
            while not over.wait(_BEAT_SECONDS):
                with suppress(OSError):  # the store is away for a moment: the next beat may reach it
                    self.write_text(name, _claim(token))

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            self.remove_text(name)

    def _take(self, name: str, token: str) -> None:
        seen, since = "", time.monotonic()
        while True:
            found = self.read_text(name)
            if found is None or (found == seen and time.monotonic() - since > _SILENT_SECONDS):
                self.remove_text(name)
                self._fs.makedirs(str(PurePosixPath(self._at(name)).parent), exist_ok=True)
                with suppress(OSError):  # somebody else was faster
                    self._fs.pipe_file(self._at(name), _claim(token).encode(), mode="create")
                # Two that came at once: the one whose token stays has it.
                time.sleep(min(1.0, _BEAT_SECONDS / 10))
                if token in (self.read_text(name) or ""):
                    return
                seen = ""
            elif found != seen:
                seen, since = found, time.monotonic()
            time.sleep(min(1.0, _BEAT_SECONDS / 10))

    def _states(self, name: str) -> list[int]:
        try:
            folders = self._fs.ls(self._at(f"{name}.unfinished"), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        numbers = [PurePosixPath(folder).name for folder in folders]
        return sorted(int(number) for number in numbers if number.isdigit() and self.has(_state(name, int(number))))

    def _remove(self, name: str) -> None:
        # The listing first: a folder that is being removed must not be taken for a whole one.
        self.remove_text(f"{name}/{STORED_FILE}")
        with suppress(FileNotFoundError):
            self._fs.rm(self._at(name), recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _state(name: str, number: int) -> str:
    return f"{name}.unfinished/{number}"


def _claim(token: str) -> str:
    beat: dict[str, Any] = {"owner": token, "beat": time.time()}
    return json.dumps(beat)
