"""Cells as jobs: through submitit's own processes here, and through a Slurm cluster where there is one (`sinfo` answers)."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from traces import results, same, shrunk, trace

from msm_bench.experiment.executors.slurm import Slurm
from msm_bench.experiment.making import Job
from msm_bench.experiment.running import run

ONE_ARM = {"arms": {"AFT": "aft:cheese-affordability"}, "contrasts": []}


def there() -> bool:
    try:
        return bool(subprocess.run(["sinfo", "--noheader"], capture_output=True, check=True, timeout=10).stdout.strip())
    except (OSError, subprocess.SubprocessError):
        return False


pytestmark = pytest.mark.usefixtures("one_thread")
pytest.importorskip("submitit")


@pytest.mark.slow
def test_cells_run_as_jobs(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}", **ONE_ARM)
    outcome = run(experiment, tmp_path / "runs", tmp_path / "logs", on=Slurm(cluster="local"))
    assert len(outcome.made) == 3 and not outcome.failed
    assert not run(experiment, tmp_path / "there/runs", tmp_path / "there/logs").failed
    assert same(results(experiment, tmp_path), results(experiment, tmp_path / "there"))


class Leaving(Slurm):
    """A driver that goes away with its first training in the queue, as if it were killed: its jobs stay."""

    def ended(self, seconds: float) -> list[str]:
        found = super().ended(1)
        if any(key in self.trainings for key in self._running):
            raise KeyboardInterrupt
        return found

    def submit(self, jobs: Sequence[Job]) -> None:
        self.trainings = {job.key for job in jobs if job.stage.startswith("train")}
        super().submit(jobs)

    def close(self) -> None:
        self._running.clear()


class Requeueing(Slurm):
    """Has Slurm requeue the first job that it sees running, as after a preemption."""

    requeued: str | None = None

    def ended(self, seconds: float) -> list[str]:
        found = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i %t"], capture_output=True, text=True, check=True)
        running = [line.split()[0] for line in found.stdout.splitlines() if line.endswith(" R")]
        if running and self.requeued is None:
            self.requeued = running[0]
            subprocess.run(["scontrol", "requeue", self.requeued], check=True)
        return super().ended(seconds)


@pytest.mark.slow
@pytest.mark.skipif(not there(), reason="needs a Slurm cluster")
def test_a_slurm_cluster_requeues_and_a_new_driver_takes_over(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}", **ONE_ARM)
    assert run(experiment, tmp_path / "runs", tmp_path / "logs", on=Leaving()).stopped
    left = sorted(path.read_text() for path in (tmp_path / "runs" / "slurm").glob("*.job"))
    found = trace(experiment, tmp_path)
    executor = Requeueing()
    outcome = run(experiment, tmp_path / "runs", tmp_path / "logs", on=executor)
    assert executor.requeued in left and not outcome.failed and not outcome.lost
    # The job of the driver that left was taken over; only the evaluation is new.
    assert len(list((tmp_path / "runs" / "slurm").glob("*_submitted.pkl"))) == 3
    assert not run(experiment, tmp_path / "there/runs", tmp_path / "there/logs").failed
    assert same(results(experiment, tmp_path), results(experiment, tmp_path / "there"))
    assert found.items() <= trace(experiment, tmp_path).items()
