"""Tasks of a Ray cluster. A task gets a cell's settings, a few kilobytes; data goes through the artefact store alone."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msm_bench.errors import MissingExtraError, WorkError
from msm_bench.experiment.making import Job, make

_ANSWERS_WITHIN = 10.0


class Ray:
    """See `contract.Executor`.

    Args:
        address: Of the cluster; None for the one of `RAY_ADDRESS` or of a `ray start` here, else a new one on this machine.
    """

    slots: int | None = None

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("Ray is not installed.", "Install it: pip install 'msm-bench[ray]'.") from error
        self._ray: Any = ray
        self._mine = not ray.is_initialized()
        if self._mine:
            try:
                _knock(address)
                ray.init(address=address, include_dashboard=None if address else False, log_to_driver=True)
            except (OSError, RuntimeError, ValueError) as error:
                problem = " ".join(str(error).split())[:300]
                mend = "Start it with 'ray start --head', and name its address: --on ray:HOST:6379."
                raise WorkError(f"No Ray cluster can be reached at '{address}': {problem}.", mend) from error
        # A cluster that grows on demand has none yet.
        self.gpus: bool | None = self._ray.cluster_resources().get("GPU", 0) > 0 or None
        self._running: dict[Any, str] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            needs = job.needs
            if not self._fits(job):  # a node that has it may come, or come back
                wanted = f"{needs.gpus:g} GPUs, {needs.cpus} CPUs and {needs.memory_gb:g} GB"
                print(f"{job.name} waits for a node with {wanted}; set resources in the experiment otherwise.", file=sys.stderr)
            task = self._ray.remote(_work).options(
                name=job.name,
                num_cpus=needs.cpus,
                num_gpus=needs.gpus,
                memory=int(needs.memory_gb * 1e9),
                # A lost task is given out again by the runner, which looks on the disk first.
                max_retries=0,
                scheduling_strategy="SPREAD",
            )
            self._running[task.remote(job.model_dump_json())] = job.key

    def ended(self, seconds: float) -> list[str]:
        if not self._running:
            return []
        over, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds, fetch_local=False)
        keys = []
        for reference in over:
            keys.append(self._running.pop(reference))
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                # The machine or the process went away. The disk says how far the cell had come.
                print(f"A task was lost: {type(error).__name__}.", file=sys.stderr)
        return keys

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._mine:
            self._ray.shutdown()

    def _fits(self, job: Job) -> bool:
        asked = {"CPU": job.needs.cpus, "GPU": job.needs.gpus, "memory": job.needs.memory_gb * 1e9}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes)


def _work(text: str) -> int:
    """Runs on the cluster. With GPUs the cell gets a process of its own, which gives them back and ends with this one."""
    from msm_bench.experiment import worker

    job = Job.model_validate_json(text)
    if job.needs.gpus:
        return worker.start(job).wait()
    # This process serves one cell after the other, and has made its imports.
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    os.chdir(job.folder)
    return 0 if make(job) else 1


def _knock(address: str | None) -> None:
    """Raises `OSError` where nothing listens. Ray itself would try for a minute or more, and end the process then."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), _ANSWERS_WITHIN).close()
