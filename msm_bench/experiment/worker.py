"""One cell in a process of its own: `python -m msm_bench.experiment.worker < JOB.json`. Exit code 0 made, 1 failed.

Ends with whoever started it, and takes the processes that it started along, so that a machine that is given up holds no GPU.
"""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from msm_bench.experiment.making import Job, make

_PR_SET_PDEATHSIG = 1


def start(job: Job, **environment: str) -> "subprocess.Popen[bytes]":
    """Starts the process of a job on this machine."""
    process = subprocess.Popen(
        [sys.executable, "-m", "msm_bench.experiment.worker"],
        stdin=subprocess.PIPE,
        # What a cell says belongs to stderr: stdout is the command's.
        stdout=sys.stderr.fileno() if _has_descriptor() else subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **environment, "MSM_BENCH_STARTED_BY": str(os.getpid())},
    )
    assert process.stdin is not None
    process.stdin.write(job.model_dump_json().encode("utf-8"))
    process.stdin.close()
    return process


def end(process: "subprocess.Popen[bytes]", seconds: float = 10) -> None:
    """Ends a job's process and what it started."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True


def _die(number: int, frame: FrameType | None) -> None:
    # The whole group: accelerate's launcher and, through it, the processes that train.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(os.getpgid(0), signal.SIGTERM)
    os._exit(128 + number)


def main() -> None:
    """Makes the cell of the job on stdin."""
    signal.signal(signal.SIGTERM, _die)
    # Slurm tells every process of a job that its time is over; the one that asked for it answers.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    started_by = os.environ.get("MSM_BENCH_STARTED_BY")
    if sys.platform == "linux" and started_by:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(started_by):  # gone before this line
            sys.exit(1)
    job = Job.model_validate_json(sys.stdin.buffer.read())
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    os.chdir(job.folder)
    sys.exit(0 if make(job) else 1)


if __name__ == "__main__":
    main()
