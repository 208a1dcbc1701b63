"""Processes of this machine, each with its own GPUs; without GPUs one cell after the other, in this process."""

import math
import os
import time
from collections.abc import Sequence
from subprocess import Popen

from msm_bench.errors import RequestError
from msm_bench.experiment import worker
from msm_bench.experiment.making import Job, make

_ROUNDING = 1e-6


class Local:
    """See `contract.Executor`.

    Args:
        processes: Cells at a time; None for one a GPU, and one in all without GPUs. With more than one a GPU, cells that ask
            for a share of a card stand on it together.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._free = dict.fromkeys(_cards(), 1.0)
        self.gpus: bool | None = bool(self._free)
        self.slots: int | None = processes or max(1, len(self._free))
        # Without a second process there is nothing to keep apart, and every start of one costs seconds of imports.
        self._here = self.slots == 1 and not self._free
        self._waiting: list[Job] = []
        self._running: dict[str, tuple[Popen[bytes], Job, list[str]]] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.needs.gpus > len(self._free):
                raise RequestError(
                    f"'{job.name}' needs {job.needs.gpus:g} GPUs, and this machine has {len(self._free)}.",
                    "Run it on a cluster with --on, or set resources in the experiment.",
                )
        self._waiting += jobs

    def ended(self, seconds: float) -> list[str]:
        if self._here:
            return [self._make_here()] if self._waiting else []
        deadline = time.monotonic() + seconds
        while True:
            self._start()
            over = [key for key, (process, *_) in self._running.items() if process.poll() is not None]
            for key in over:
                _, job, cards = self._running.pop(key)
                self._give(cards, job, back=True)
            if over or time.monotonic() > deadline:
                return over
            time.sleep(0.2)

    def close(self) -> None:
        self._waiting.clear()
        for process, *_ in self._running.values():
            worker.end(process)
        self._running.clear()

    def _make_here(self) -> str:
        job = self._waiting.pop(0)
        make(job)
        return job.key

    def _start(self) -> None:
        for job in list(self._waiting):
            if len(self._running) >= (self.slots or 1) or (mine := self._cards_for(job)) is None:
                continue
            self._waiting.remove(job)
            self._give(mine, job)
            threads = max(1, (os.cpu_count() or 1) // (self.slots or 1))
            environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
            self._running[job.key] = worker.start(job, CUDA_VISIBLE_DEVICES=",".join(mine), **environment), job, mine

    def _cards_for(self, job: Job) -> list[str] | None:
        """The emptiest cards with room for a job, None while there are too few."""
        count = math.ceil(job.needs.gpus)
        each = min(job.needs.gpus, 1.0)
        room = [card for card, free in self._free.items() if free >= each - _ROUNDING]
        room.sort(key=self._free.__getitem__, reverse=True)
        return room[:count] if len(room) >= count else None

    def _give(self, cards: Sequence[str], job: Job, back: bool = False) -> None:
        for card in cards:
            self._free[card] += min(job.needs.gpus, 1.0) * (1 if back else -1)


def _cards() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
