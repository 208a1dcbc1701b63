"""Jobs of a Slurm cluster, through submitit: all cells of one stage that can be made now are one array.

A job that Slurm requeues, after a preemption, a lost node or its time limit, does the same call again, which goes on from
what is on disk. A driver that went away leaves its jobs in the queue; the next one finds them there and waits for them.
"""

import itertools
import math
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msm_bench.artefacts import write_text_atomically
from msm_bench.errors import MissingExtraError, WorkError
from msm_bench.experiment.making import Job

_LOOK_SECONDS = 5.0
_REQUEUES = 1000
"""Time limits that one job may run into: a long training under a short limit is a chain of them."""


class Slurm:
    """See `contract.Executor`.

    Args:
        partition: Where to; None for the cluster's default.
        cluster: `slurm`, or `local` for submitit's own processes on this machine, which tests use.
    """

    gpus: bool | None = None
    slots: int | None = None

    def __init__(self, partition: str | None = None, cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError as error:
            raise MissingExtraError("submitit is not installed.", "Install it: pip install 'msm-bench[slurm]'.") from error
        self._submitit: Any = submitit
        self._partition, self._cluster = partition, cluster
        self._running: dict[str, Any] = {}
        self._gone: dict[str, float] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        def alike(job: Job) -> tuple[str, str]:
            return job.stage, job.needs.model_dump_json()

        active = self._active()
        for _, group in itertools.groupby(sorted(jobs, key=alike), alike):
            new = [job for job in group if not self._find(job, active)]
            if not new:
                continue
            executor = self._executor(new[0])
            try:
                submitted = executor.map_array(Cell(), [job.model_dump_json() for job in new])
            except (self._submitit.core.utils.FailedJobError, OSError) as error:
                problem = " ".join(str(error).split())[:300]
                raise WorkError(f"Slurm took no job: {problem}.", "Mend it, and run the same command again.") from error
            for job, made in zip(new, submitted, strict=True):
                self._running[job.key] = made
                write_text_atomically(_folder(job) / f"{job.key}.job", str(made.job_id))

    def ended(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while True:
            active = self._active()
            over = [key for key, job in self._running.items() if self._is_over(key, job, active)]
            for key in over:
                self._running.pop(key)
            if over or time.monotonic() > deadline:
                return over
            time.sleep(min(_LOOK_SECONDS, seconds))

    def close(self) -> None:
        for job in self._running.values():
            job.cancel(check=False)
        self._running.clear()

    def _executor(self, job: Job) -> Any:
        executor = self._submitit.AutoExecutor(_folder(job), self._cluster, slurm_max_num_timeout=_REQUEUES)
        needs = job.needs
        settings: dict[str, Any] = {
            "name": job.stage,
            "timeout_min": max(1, round(needs.hours * 60)),
            "cpus_per_task": needs.cpus,
            "mem_gb": needs.memory_gb,
            "slurm_additional_parameters": {"requeue": True},
        }
        if needs.gpus:
            settings["gpus_per_node"] = math.ceil(needs.gpus)
        if self._partition:
            settings["slurm_partition"] = self._partition
        executor.update_parameters(**settings)
        return executor

    def _find(self, job: Job, active: set[str] | None) -> bool:
        """Takes over the job of a driver that went away, if it is still in the queue."""
        path = _folder(job) / f"{job.key}.job"
        name = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not name or active is None or name not in active:
            return False
        self._running[job.key] = self._submitit.SlurmJob(_folder(job), name)
        return True

    def _is_over(self, key: str, job: Any, active: set[str] | None) -> bool:
        if self._cluster != "slurm":
            return bool(job.done())
        if job.paths.result_pickle.exists():
            return True
        # One look may come between two states of a requeue, or before a shared disk shows the result.
        if active is None or job.job_id in active:
            self._gone.pop(key, None)
            return False
        return time.monotonic() - self._gone.setdefault(key, time.monotonic()) > 3 * _LOOK_SECONDS

    def _active(self) -> set[str] | None:
        """Ids of this user's jobs that are queued or run; None where nobody can say."""
        if self._cluster != "slurm":
            return None
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            return None
        return set(found.stdout.split())


class Cell:
    """What a job runs. After a signal that its time is over, submitit asks it for what to run next: the same."""

    def __call__(self, text: str) -> int:
        from msm_bench.experiment import worker

        return worker.start(Job.model_validate_json(text)).wait()

    def checkpoint(self, text: str) -> Any:
        """The call that a requeued job makes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, text)


def _folder(job: Job) -> Path:
    # Of the driver, not of the job: Slurm's own scripts and outputs must lie where all nodes see them.
    folder = Path(job.root).absolute() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
