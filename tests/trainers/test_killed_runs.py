"""A run killed with SIGKILL goes on from its last complete state and ends as an undisturbed one does."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_makers import FAST, chat, chats_folder, documents_folder, make_model

from msm_bench.checkpoints.manifest import Checkpoint, read_checkpoint
from msm_bench.trainers import train
from msm_bench.trainers.states import last_state, remove_incomplete

SETTINGS = {**FAST, "epochs": "6", "save_every": "3"}


def request(base: Path, data: Path, out: Path) -> dict[str, object]:
    return {
        "name": "msm",
        "recipe": "laptop",
        "model": str(base),
        "data": [str(data)],
        "out": str(out),
        "overrides": SETTINGS,
        "allow_few_updates": True,
    }


def killed_and_finished(asked: dict[str, object], points: list[tuple[int, float]]) -> Checkpoint:
    """Kill the run past each update, some seconds later, then let it end."""
    command = [sys.executable, str(Path(__file__).with_name("kill_runner.py")), json.dumps(asked), json.dumps(points)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("ended before it was killed") <= len(points) // 4
    found = read_checkpoint(Path(str(asked["out"])))
    assert found is not None
    return found


def test_a_killed_run_ends_like_an_undisturbed_one(base: Path, documents: Path, tmp_path: Path) -> None:
    train(**request(base, documents, tmp_path / "whole"))  # type: ignore[arg-type]
    whole = read_checkpoint(tmp_path / "whole")
    found = killed_and_finished(request(base, documents, tmp_path / "killed"), [(7, 0.0), (20, 0.01)])
    assert whole is not None and found.id == whole.id
    assert (tmp_path / "killed" / "losses.jsonl").read_text() == (tmp_path / "whole" / "losses.jsonl").read_text()
    assert found.metrics == whole.metrics
    # The time of the first parts is not known, so none is stated.
    assert "seconds" in whole.cost and "seconds" not in found.cost
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob(".building*"))


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path: Path) -> None:
    base, data = make_model(tmp_path / "base"), documents_folder(tmp_path / "documents", 60)
    train(**request(base, data, tmp_path / "whole"))  # type: ignore[arg-type]
    whole = read_checkpoint(tmp_path / "whole")
    assert whole is not None
    chance = random.Random(11)
    points = sorted(chance.randrange(whole.updates) for _ in range(20))
    moments = [(point, chance.uniform(0, 0.05)) for point in points]
    found = killed_and_finished(request(base, data, tmp_path / "killed"), moments)
    assert found.id == whole.id and found.metrics == whole.metrics
    assert (tmp_path / "killed" / "losses.jsonl").read_text() == (tmp_path / "whole" / "losses.jsonl").read_text()


def test_states_are_found_by_number_and_only_when_complete(tmp_path: Path) -> None:
    for number, complete in ((99, True), (798, True), (1000, False)):
        (tmp_path / f"checkpoint-{number}").mkdir()
        if complete:
            (tmp_path / f"checkpoint-{number}" / "complete").touch()
    assert last_state(tmp_path) == tmp_path / "checkpoint-798"
    remove_incomplete(tmp_path)
    assert not (tmp_path / "checkpoint-1000").exists()
    assert last_state(tmp_path / "nothing") is None


def test_a_kill_between_the_end_of_training_and_the_checkpoint(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained is not trained again: the next call saves from the last state."""
    data = chats_folder(tmp_path / "chats", 30, chat)
    asked = {**request(base, data, tmp_path / "out"), "name": "aft"}

    def power_cut(*unused: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("msm_bench.trainers.saving.save", power_cut)
        train(**asked)  # type: ignore[arg-type]
    losses = tmp_path / "out.partial" / "next-token" / "losses.jsonl"
    before = losses.read_text()
    assert not (tmp_path / "out").exists()
    found = train(**asked)  # type: ignore[arg-type]
    assert isinstance(found, Checkpoint)
    assert (tmp_path / "out" / "losses.jsonl").read_text() == before
