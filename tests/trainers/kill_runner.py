"""Runs one request again and again in forked processes, killing each at a given moment, and lets the last one finish.

Everything is imported once and no tensor is made before the forks, so that a kill costs a second and not an import.

python kill_runner.py REQUEST-JSON [[update, seconds], ...]
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import trl.trainer.grpo_trainer  # noqa: F401  (whatever a run imports later on is imported here)

import msm_bench.trainers.loading
import msm_bench.trainers.saving  # noqa: F401
from msm_bench.trainers import train


def forked(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            train(**asked)
        finally:
            os._exit(0 if Path(asked["out"]).exists() else 1)
    return pid


def killed(asked: dict[str, Any], update: int, delay: float) -> None:
    """Kill a run once it is past an update, a moment later."""
    pid = forked(asked)
    losses = Path(f"{asked['out']}.partial") / "next-token" / "losses.jsonl"
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if losses.is_file() and losses.read_text().count("\n") >= update:
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.002)


def main() -> int:
    asked = json.loads(sys.argv[1])
    for update, delay in json.loads(sys.argv[2]):
        killed(asked, update, delay)
        if Path(asked["out"]).exists():
            print("a run ended before it was killed", file=sys.stderr)
    return os.waitstatus_to_exitcode(os.waitpid(forked(asked), 0)[1])


if __name__ == "__main__":
    sys.exit(main())
