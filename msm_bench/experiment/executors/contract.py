"""What an executor is. The truth about a cell is on disk: an executor starts jobs and says which have ended, no more.

executor.submit(jobs)          # all of one stage that can be made now
for key in executor.ended(5):  # made, failed, or lost: the disk says which
    ...
executor.close()
"""

from collections.abc import Sequence
from typing import Protocol

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.experiment.making import Job

NAMES = ("local", "ray", "slurm")


class Executor(Protocol):
    """Makes cells somewhere."""

    gpus: bool | None
    """Whether there are GPUs; None where nobody can say before it is asked for one."""
    slots: int | None
    """Jobs that it takes at a time; None for as many as there are, which it queues."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Starts or queues jobs.

        Raises:
            RequestError: no machine of it can ever give what a job needs.
        """

    def ended(self, seconds: float) -> list[str]:
        """Keys of jobs that run no longer, whatever became of them; waits for one at most so long."""

    def close(self) -> None:
        """Ends what still runs. Its unfinished work stays on disk."""


def executor_of(on: str) -> Executor:
    """The executor of `--on`: `local[:PROCESSES]`, `ray[:ADDRESS]` or `slurm[:PARTITION]`.

    Raises:
        UnknownNameError: another name.
        RequestError: a count of processes that is none.
        MissingExtraError: its package is not installed.
        WorkError: the cluster cannot be reached.
    """
    name, _, rest = on.partition(":")
    if name == "ray":
        from msm_bench.experiment.executors.ray import Ray

        return Ray(rest or None)
    if name == "slurm":
        from msm_bench.experiment.executors.slurm import Slurm

        return Slurm(rest or None)
    if name != "local":
        raise UnknownNameError("executor", name, NAMES)
    from msm_bench.experiment.executors.local import Local

    if rest and not (rest.isdigit() and int(rest)):
        raise RequestError(f"'{rest}' is no number of processes.", "Write local:4, say.")
    return Local(int(rest) if rest else None)
