"""`run` killed and stopped on this machine: finished by the same command, with the same results and nothing made twice."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from traces import results, same, shrunk, trace

from msm_bench.experiment.running import run
from msm_bench.experiment.settings import Experiment
from msm_bench.experiment.status import status

ONE_ARM = {"arms": {"AFT": "aft:cheese-affordability"}, "contrasts": []}


class Command:
    """`msm-bench run` in a process, with what it says."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        file = folder / "tiny.yaml"
        file.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        command = [sys.executable, "-m", "msm_bench.cli", "run", str(file), "--runs", "runs", "--logs", "logs"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += iter(self.process.stdout.readline, "")

    def wait_for(self, text: str) -> None:
        while not any(text in line for line in list(self.lines)):
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)


@pytest.fixture
def reference(model_folder: Callable[..., Path], one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "reference"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_an_interrupt_leaves_what_run_continues(model_folder: Callable[..., Path], reference: Path, tmp_path: Path) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}", **ONE_ARM)
    assert not run(experiment, Path("runs"), Path("logs")).failed
    command = Command(experiment, tmp_path / "stopped")
    command.wait_for("aft:cheese-affordability s0: begins")
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(60) == 1
    command.reader.join()
    assert "Stopped: it was interrupted. The same command goes on." in "".join(command.lines)
    found = trace(experiment, tmp_path / "stopped")
    states = status(experiment, tmp_path / "stopped/runs", tmp_path / "stopped/logs").counts
    assert states.get("failed") is None and states["done"] < 3
    again = Command(experiment, tmp_path / "stopped")
    assert again.process.wait(200) == 0
    assert same(results(experiment, tmp_path / "stopped"), results(experiment, reference))
    assert found.items() <= trace(experiment, tmp_path / "stopped").items()


@pytest.mark.slow
def test_ten_kills_at_random_points_change_nothing(model_folder: Callable[..., Path], reference: Path, tmp_path: Path) -> None:
    experiment = shrunk(f"msm/{model_folder('llama')}")
    assert not run(experiment, Path("runs"), Path("logs")).failed
    whole = len(trace(experiment, reference))
    dice, kills, folder = random.Random(0), 0, tmp_path / "killed-0"
    found: dict[str, str] = {}
    while kills < 10:
        command = Command(experiment, folder)
        # Not after a time: most of it are imports. After some more work, and somewhere in what comes next.
        wanted = len(found) + dice.randint(1, whole // 6)
        while command.process.poll() is None and len(trace(experiment, folder)) < wanted:
            time.sleep(0.1)
        try:
            command.process.wait(dice.uniform(0, 1))
        except subprocess.TimeoutExpired:
            command.process.kill()
            command.process.wait()
            kills += 1
            command.reader.join()
            last = next((line.split("] ")[-1].strip() for line in command.lines[::-1] if "begins" in line), "the start")
            now = trace(experiment, folder)
            print(f"kill {kills} in '{last}': {len(now)} of {whole} pieces of work there", flush=True)
            assert found.items() <= now.items()
            found = now
        else:
            check(experiment, folder, reference, found)
            folder, found = tmp_path / f"killed-{kills}", {}
    assert Command(experiment, folder).process.wait(600) == 0
    check(experiment, folder, reference, found)


def check(experiment: Experiment, folder: Path, reference: Path, found: dict[str, str]) -> None:
    """The same results, and what was there at the last kill is what is there now."""
    whole = trace(experiment, folder)
    twice = [name for name in found if whole.get(name) != found[name]]
    print(f"finished: {len(whole)} pieces of work, {len(found)} of them from before the last kill, {len(twice)} made twice")
    assert not twice and same(results(experiment, folder), results(experiment, reference))
