"""States that a killed run goes on from, the losses of every update, and the stop when a loss is no number or diverges."""

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from msm_bench.errors import WorkError

_COMPLETE = "complete"
_WINDOW = 10
"""Updates whose mean loss is compared when looking for divergence."""


def on_cpu() -> bool:
    """Whether training runs on CPUs: there is nothing else."""
    return not (torch.cuda.is_available() or torch.backends.mps.is_available())


def processes() -> PartialState:
    """The processes of this run; joins them on the first call."""
    # Without being told, Accelerate takes a launched process on a machine without a GPU for one that is alone.
    return PartialState(cpu=True) if on_cpu() else PartialState()


def last_state(folder: Path) -> Path | None:
    """The newest complete state in a folder, by its number; None to start from the beginning."""
    states = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if (path / _COMPLETE).is_file()]
    return max(states, key=_number, default=None)


def remove_incomplete(folder: Path) -> None:
    """Remove the states that a kill left half written."""
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if not (path / _COMPLETE).is_file():
            shutil.rmtree(path)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


class States(TrainerCallback):
    """Marks a state as complete once every process has written its part of it and all of it is on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        processes().wait_for_everyone()
        if state.is_world_process_zero:
            folder = self._folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            for path in folder.rglob("*"):
                if path.is_file():
                    _flush(path)
            (folder / _COMPLETE).touch()
            _flush(folder)
        processes().wait_for_everyone()


class Losses(TrainerCallback):
    """Writes one line an update to a file, and stops a run whose loss is no number or diverges.

    Args:
        path: The file; lines past the state that a run goes on from are removed at its start.
        extra: Update (from 1) to further fields of its line.
        diverges: Whether the mean of the last updates is compared with the lowest so far.
    """

    def __init__(self, path: Path, extra: list[dict[str, int]] | None = None, diverges: bool = True) -> None:
        self._path = path
        self._extra = extra or []
        self._diverges = diverges
        self._losses: list[float] = []
        self._lowest = math.inf
        self._console = Console(file=sys.stderr, soft_wrap=True)
        self._begun = (0, 0.0)
        self._shown = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        lines = read_losses(self._path)[: state.global_step]
        for line in lines:
            self._watch(line["loss"])
        if state.is_world_process_zero:
            self._path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        self._begun = (state.global_step, time.monotonic())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **unused: Any) -> None:
        if not logs or "loss" not in logs:
            return
        update = state.global_step
        line = {"update": update, "loss": logs["loss"], "learning_rate": logs.get("learning_rate")}
        line["grad_norm"] = logs.get("grad_norm")
        line |= {key: value for key, value in logs.items() if key in ("reward", "reward_std", "kl")}
        line |= self._extra[update - 1] if update <= len(self._extra) else {}
        if state.is_world_process_zero:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: value if _is_number(value) else None for key, value in line.items()}) + "\n")
            self._show(state, logs["loss"])
        if not math.isfinite(logs["loss"]):
            raise _stop(f"The loss of update {update} is not a number", self._path.parent)
        if self._watch(logs["loss"]):
            raise _stop(f"The loss diverges at update {update} (a mean of {self._mean():.3g})", self._path.parent)

    def _watch(self, loss: float) -> bool:
        """Take in a loss; True when the last ones lie far above the lowest so far (twice, and at least 1 nat)."""
        self._losses.append(loss)
        if not self._diverges or len(self._losses) < _WINDOW:
            return False
        mean = self._mean()
        self._lowest = min(self._lowest, mean)
        return mean > max(2 * self._lowest, self._lowest + 1)

    def _mean(self) -> float:
        last = self._losses[-_WINDOW:]
        return sum(last) / len(last)

    def _show(self, state: Any, loss: float) -> None:
        now = time.monotonic()
        if now - self._shown < 15 and state.global_step < state.max_steps:
            return
        self._shown = now
        done, begun = state.global_step - self._begun[0], self._begun[1]
        left = (now - begun) / max(done, 1) * (state.max_steps - state.global_step)
        text = f"update {state.global_step}/{state.max_steps}  loss {loss:.3f}  {left:.0f} s left"
        self._console.print(text, markup=False, highlight=False)


def read_losses(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of losses; a last line that a kill cut off is left out."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _stop(what: str, folder: Path) -> WorkError:
    state = last_state(folder)
    kept = f"The last good state is kept in '{state}'" if state else "No state had been saved yet"
    return WorkError(f"{what}. {kept}.", "Remove that folder and train again with a lower --set learning_rate.")


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
