"""Runs a server and ends it, whatever becomes of the process that wanted it. A script that imports nothing of this package.

    python keeper.py LOG COMMAND...

The keeper's stdin is a pipe that its parent holds open. When the pipe closes, because the parent asks for the end, died, or
was killed with SIGKILL, the server and all its children are ended: first asked, then killed. The keeper ends when the server
does, with its exit code.

It is two processes. Ray kills a worker together with the worker's children, and a keeper killed so would leave the server's
own children behind, with the GPU's memory: so the child only waits, and its child, in a session of its own, does the work.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]

_GRACE = 20.0
"""Seconds between asking and killing."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> int:
    """Run the command of the arguments until it ends or stdin closes."""
    log, *command = sys.argv[1:]
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the parent decides by its pipe
    waiting = os.getpid()
    keeper = os.fork()
    return _wait(keeper, parent) if keeper else _keep(log, command, waiting)


def _wait(keeper: int, parent: int) -> int:
    """The exit code of the process that keeps the server; ends early, as its sign, when the parent is gone."""
    while os.getppid() == parent:  # a fork of the parent may hold the pipe open
        ended, status = os.waitpid(keeper, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    return 1


def _keep(log: str, command: list[str], waiting: int) -> int:
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # grandchildren whose parent dies become this process's children, and are found
    with Path(log).open("ab") as out:
        # A group of its own, so that a Ctrl-C does not end the server before the run has written what it has.
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_before_exec,
        )
    while server.poll() is None and os.getppid() == waiting:
        ready, _, _ = select.select([0], [], [], 0.2)
        if ready and not os.read(0, 4096):
            break
    _end(server)
    return server.returncode or 0


def _before_exec() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # for a keeper that is killed itself


def _end(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_GRACE)
    deadline = time.monotonic() + _GRACE
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    server.wait()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
