"""Processes of this machine, each with its own GPUs; without GPUs one cell after the other, in this process."""

import os
import time
from collections.abc import Sequence
from subprocess import Popen

from msm_bench.errors import RequestError
from msm_bench.experiment import worker
from msm_bench.experiment.making import Job, make


class Local:
    """See `contract.Executor`.

    Args:
        processes: Cells at a time; None for one a GPU, and one in all without GPUs.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._cards = _cards()
        self.gpus: bool | None = bool(self._cards)
        self.slots: int | None = processes or max(1, len(self._cards))
        # Without a second process there is nothing to keep apart, and every start of one costs seconds of imports.
        self._here = self.slots == 1 and not self._cards
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Popen[bytes], list[str]]] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.needs.gpus > len(self._cards):
                raise RequestError(
                    f"'{job.name}' needs {job.needs.gpus} GPUs, and this machine has {len(self._cards)}.",
                    "Run it on a cluster with --on, or set resources in the experiment.",
                )
        self._waiting += jobs

    def ended(self, seconds: float) -> list[str]:
        if self._here:
            return [self._make_here()] if self._waiting else []
        deadline = time.monotonic() + seconds
        while True:
            self._start()
            over = [key for key, (process, _) in self._running.items() if process.poll() is not None]
            for key in over:
                self._cards += self._running.pop(key)[1]
            if over or time.monotonic() > deadline:
                return over
            time.sleep(0.2)

    def close(self) -> None:
        self._waiting.clear()
        for process, _ in self._running.values():
            worker.end(process)
        self._running.clear()

    def _make_here(self) -> str:
        job = self._waiting.pop(0)
        make(job)
        return job.key

    def _start(self) -> None:
        for job in list(self._waiting):
            if len(self._running) >= (self.slots or 1) or job.needs.gpus > len(self._cards):
                continue
            self._waiting.remove(job)
            mine, self._cards = self._cards[: job.needs.gpus], self._cards[job.needs.gpus :]
            threads = max(1, (os.cpu_count() or 1) // (self.slots or 1))
            environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
            self._running[job.key] = worker.start(job, CUDA_VISIBLE_DEVICES=",".join(mine), **environment), mine


def _cards() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
