"""The work folder of a corpus: every reply that was paid for, on disk before the next thing starts, and bought once.

    <work>/
      lock            held by the one process that works here
      calls.jsonl     one line a call that was answered, appended and flushed to the disk at once
      batches.jsonl   batches that were handed to a provider, see `batches.py`
      logs/           Inspect's logs, one a stage and round

A call is known by the hash of its request (model, prompt, settings), so an answered request is never sent again, whichever
run, size of corpus or stage asks for it. A line that a kill cut off is dropped when the folder is next opened.
"""

import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msm_bench.corpus.pipeline.prices import Usage
from msm_bench.errors import CacheError, RequestError, WorkError

CALLS_FILE = "calls.jsonl"
LOCK_FILE = "lock"
KEPT = "kept"


class Call(BaseModel):
    """One answered call (a line of `calls.jsonl`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: str = Field(pattern="^[0-9a-f]{64}$")
    """Hash of the model, the prompt and the settings."""
    stage: str
    item: str
    """What it was asked for; items of equal prompts share a call."""
    attempt: int = Field(ge=1)
    model: str
    outcome: str
    """`kept`, or the reason why not."""
    detail: str = ""
    """What was found, where it was not kept."""
    text: str
    stop_reason: str
    usage: Usage | None
    """Absent where the provider reported none."""
    dollars: float | None
    """Absent where the usage or the price is not known."""
    seconds: float = Field(ge=0)
    at: str
    """When the answer came, in UTC."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is held in memory of a call; the text stays on the disk."""

    offset: int
    stage: str
    item: str
    attempt: int
    model: str
    outcome: str
    usage: Usage | None
    dollars: float | None


class Store:
    """An open work folder. Use as a context manager; only one process holds a folder at a time.

    Args:
        folder: The folder; made where it is not there.

    Raises:
        RequestError: another process works in the folder.
        WorkError: a line in the middle of `calls.jsonl` cannot be read.
        CacheError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / LOCK_FILE)
        self._entries: dict[str, Entry] = {}
        self._file: io.FileIO | None = None
        self._end = 0
        self._synced = 0
        self._write_mutex = threading.Lock()
        self._sync_mutex = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            problem = f"Another process is working in '{self.folder}'."
            raise RequestError(problem, "Wait until it has ended, or name another folder.") from error
        except OSError as error:
            problem = f"'{self.folder}' cannot be written to ({error.strerror})."
            raise CacheError(problem, "Name a folder that you can write to.") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and frees the folder for others."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()

    def __contains__(self, request: str) -> bool:
        return request in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every call's request hash and entry, in the order in which the answers came."""
        yield from self._entries.items()

    def get(self, request: str) -> Entry | None:
        """The entry of a request, or None if it was never answered."""
        return self._entries.get(request)

    def read(self, request: str) -> Call:
        """The whole call of an answered request, from the disk."""
        with (self.folder / CALLS_FILE).open("rb") as file:
            file.seek(self._entries[request].offset)
            return Call.model_validate_json(file.readline())

    def append(self, call: Call) -> None:
        """Puts a call on the disk; returns when it is there. Safe to call from many threads, which share their flushes.

        Raises:
            CacheError: the disk is full or fails.
        """
        line = (call.model_dump_json() + "\n").encode("utf-8")
        assert self._file is not None, "the store is not open"
        try:
            with self._write_mutex:
                offset = self._end
                # A plain write may take less than it was given; the rest follows.
                rest = memoryview(line)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self._end = end = offset + len(line)
                # Known from here on; whoever waits below waits only for the disk.
                self._remember(call, offset)
            with self._sync_mutex:
                if self._synced < end:
                    reached = self._end
                    os.fsync(self._file.fileno())
                    self._synced = reached
        except OSError as error:
            problem = f"'{self.folder / CALLS_FILE}' cannot be written ({error.strerror})."
            raise CacheError(problem, "Free space on its disk and run the same command again.") from error

    def spent(self) -> float:
        """Dollars of all calls whose price is known."""
        return sum(entry.dollars or 0.0 for entry in self._entries.values())

    def _remember(self, call: Call, offset: int) -> None:
        self._entries[call.request] = Entry(
            offset, call.stage, call.item, call.attempt, call.model, call.outcome, call.usage, call.dollars
        )

    def _open(self) -> None:
        path = self.folder / CALLS_FILE
        if path.exists():
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):  # a kill came while it was written: the call was never counted as answered
                        break
                    try:
                        self._remember(Call.model_validate_json(line), self._end)
                    except ValidationError as error:
                        problem = f"{path}, line {number}, is not a call."
                        raise WorkError(problem, "Take the line out; what it held is then asked for again.") from error
                    self._end += len(line)
            os.truncate(path, self._end)
        self._file = path.open("ab", buffering=0)
        self._synced = self._end


def read_json_lines(path: Path) -> list[dict[str, object]]:
    """The objects of a JSON Lines file that was appended to; a cut last line is left out, no file is no lines."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1] if line.strip()]
