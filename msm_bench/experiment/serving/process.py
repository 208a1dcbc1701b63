"""A server's process: started on a free port, waited for, and ended with all its children."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from msm_bench.errors import WorkError

_KEEPER = Path(__file__).with_name("keeper.py")
_LINES = 15
"""Of the log, in an error's message."""


@contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine that nobody gets as long as this lasts, but who binds it by its number."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def running(command: Sequence[str], log: Path, env: dict[str, str]) -> Iterator[Callable[[], int | None]]:
    """Run a command; at the end, however it comes, the command and all its children are ended.

    Args:
        command: What to run. A keeper process runs it, which outlives this one just long enough to end it.
        log: Gets stdout and stderr, behind what it holds.
        env: Changes to the environment.

    Yields:
        A function that returns the exit code, None while the command runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    keeper = subprocess.Popen(
        [sys.executable, str(_KEEPER), str(log), *command],
        stdin=subprocess.PIPE,
        env={**os.environ, **env},
        start_new_session=True,
    )
    try:
        yield keeper.poll
    finally:
        assert keeper.stdin is not None
        with suppress(BrokenPipeError):
            keeper.stdin.close()
        keeper.wait()


def wait_until(ready: Callable[[], bool], exited: Callable[[], int | None], seconds: float, log: Path) -> None:
    """Wait for a server.

    Raises:
        WorkError: it ended, or is not ready in time; the message holds the last lines of its log.
    """
    begun, pause = time.monotonic(), 0.05
    while not ready():
        code = exited()
        if code is not None:
            raise WorkError(f"The server ended with exit code {code} before it answered. {tail(log)}", _mend(log))
        if time.monotonic() - begun > seconds:
            raise WorkError(f"The server did not answer within {seconds:g} s. {tail(log)}", _mend(log))
        time.sleep(pause)
        pause = min(pause * 1.5, 1.0)


def tail(log: Path) -> str:
    """The last lines of a log in one text, for an error's message."""
    if not log.is_file():
        return "It wrote no log."
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:]
    return f"Its log ends: {' | '.join(line.strip() for line in lines)[-1500:]}" if lines else "It wrote nothing."


def _mend(log: Path) -> str:
    return f"Read '{log}'; serve.args and serve.start_seconds change how the server starts."
