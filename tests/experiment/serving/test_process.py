"""A server's process ends with what wanted it, children and all; and what is said when it does not come up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from msm_bench.errors import MissingExtraError, RequestError, WorkError
from msm_bench.experiment.serving.process import free_port, running, wait_until
from msm_bench.experiment.serving.settings import Serving

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN) if {stubborn} else None
child = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
child += "print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child])
print(os.getpid(), flush=True)
time.sleep(600)
"""
HOLDER = """
import sys, time
from pathlib import Path
from msm_bench.experiment.serving.process import running
with running([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), {}):
    print("holding", flush=True)
    time.sleep(600)
"""


def script(stubborn: bool = False) -> str:
    return STUBBORN.format(stubborn=stubborn)


def pids(log: Path) -> list[int]:
    """The processes that wrote their numbers: the server and its child, which left its group."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = log.read_text().split() if log.is_file() else []
        if len(found) == 2:
            return [int(number) for number in found]
        time.sleep(0.05)
    raise AssertionError("the processes did not start")


def all_gone(numbers: list[int], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_runs(number) for number in numbers):
            return True
        time.sleep(0.05)
    return False


def _runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_children_of_a_server_end_with_it(tmp_path: Path) -> None:
    with running([sys.executable, "-c", script()], tmp_path / "log", {}) as exited:
        numbers = pids(tmp_path / "log")
        assert exited() is None and not all_gone(numbers, 0.1)
    assert all_gone(numbers, 2) and exited() is not None


def test_they_end_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), running([sys.executable, "-c", script()], tmp_path / "log", {}):
        numbers = pids(tmp_path / "log")
        raise KeyError("a failure of the run")
    assert all_gone(numbers, 2)


def test_they_end_when_the_run_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, script(), str(log)], stdout=subprocess.PIPE, cwd=tmp_path)
    numbers = pids(log)
    keeper = psutil.Process(numbers[0]).parent()
    assert keeper is not None
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert all_gone([*numbers, keeper.pid])


def test_they_end_when_the_run_is_killed_with_its_children(tmp_path: Path) -> None:
    """As Ray ends a worker: SIGKILL to the process and to each of its children."""
    log = tmp_path / "log"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, script(), str(log)], stdout=subprocess.PIPE, cwd=tmp_path)
    numbers = pids(log)
    for process in (*psutil.Process(holder.pid).children(), holder):
        process.send_signal(signal.SIGKILL)
    holder.wait()
    assert all_gone(numbers)


def test_a_server_ends_when_its_keeper_is_killed(tmp_path: Path) -> None:
    with running([sys.executable, "-c", script(stubborn=True)], tmp_path / "log", {}):
        server, child = pids(tmp_path / "log")
        keeper = psutil.Process(server).parent()
        assert keeper is not None
        keeper.kill()
        try:
            assert all_gone([server])
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_server_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('no room on the device'); sys.exit(3)"]
    log = tmp_path / "log"
    with running(command, log, {}) as exited, pytest.raises(WorkError, match=r"exit code 3 .* no room on the device"):
        wait_until(lambda: False, exited, 30, log)


def test_waiting_has_an_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running([sys.executable, "-c", "import time; time.sleep(60)"], log, {}) as exited:
        begun = time.monotonic()
        with pytest.raises(WorkError, match=r"did not answer within 0.3 s"):
            wait_until(lambda: False, exited, 0.3, log)
    assert time.monotonic() - begun < 50


def test_a_free_port_is_kept_for_who_knows_its_number() -> None:
    with free_port() as one, free_port() as two:
        assert one != two


def test_settings_are_a_name_or_a_mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Serving.model_validate("vllm") == Serving() == Serving.model_validate({})
    given = Serving.model_validate({"args": {"tensor-parallel-size": 2, "data_parallel_size": 2}})
    assert given.gpus == 4 and given.identity() != Serving().identity()
    assert given.model_copy(update={"start_seconds": 5}).identity() == given.identity()
    for bad in ("sglang", {"args": {"port": 8000}}, {"pyhton": "x"}):
        with pytest.raises(ValueError, match=r"engine|set by the run|Extra inputs"):
            Serving.model_validate(bad)
    monkeypatch.setenv("MSM_BENCH_VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(RequestError, match="no Python"):
        Serving().find_python()
    monkeypatch.delenv("MSM_BENCH_VLLM_PYTHON")
    with pytest.raises(MissingExtraError, match="MSM_BENCH_VLLM_PYTHON"):
        Serving().find_python()
