"""A whole small experiment with real corpora, real training and real evaluations, on a tiny random model."""

import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import list_eval_logs, read_eval_log

from msm_bench.errors import RequestError
from msm_bench.experiment import costs, making
from msm_bench.experiment.cells import plan
from msm_bench.experiment.executors import local
from msm_bench.experiment.places import DONE_FILE, Places
from msm_bench.experiment.running import Outcome, run
from msm_bench.experiment.settings import Experiment, load_experiment, shipped
from msm_bench.experiment.status import status

FEW = {"max_tokens": 256, "rank": 2, "alpha": 4, "batch_rows": 8, "micro_batch_rows": 8, "epochs": 1, "held_out": 0.2}


@pytest.fixture(scope="module")
def experiment(model_folder: Callable[..., Path]) -> Experiment:
    """Three arms on one midtraining stage, and their matched control."""
    return Experiment.model_validate(
        {
            "name": "tiny",
            "base": f"msm/{model_folder('llama')}",
            "recipe": "laptop",
            "overrides": {"msm": FEW, "aft": FEW},
            "seeds": [1],
            "corpora": {"offline": True, "documents": 4, "chats": 24},
            "arms": {
                "base": "",
                "MSM": "msm:cheese-america",
                "MSM+AFT": "msm:cheese-america aft:cheese-america",
            },
            "evals": [
                {"task": "value_preferences", "args": {"value": "america", "kind": "item", "limit_per_value": 3}, "epochs": 1}
            ],
            "model_args": {"dtype": "float32", "device": "cpu"},
            "allow_few_updates": True,
            "waive": ["substrate"],
        }
    )


def go(experiment: Experiment, folder: Path) -> Outcome:
    return run(experiment, folder / "runs", folder / "logs")


def files(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


def test_shared_stages_are_one_cell(experiment: Experiment) -> None:
    six = {f"arm {n}": f"msm:cheese-america aft:cheese-america+{n}%mix" for n in range(1, 7)}
    made = plan(experiment.model_copy(update={"arms": six, "matched_control": False}))
    assert [cell.stage.kind for cell in made.training].count("msm") == 1 and len(made.training) == 7


def test_changing_anything_changes_the_cells_behind_it_alone(experiment: Experiment) -> None:
    before = plan(experiment)
    after = plan(experiment.model_copy(update={"overrides": {"msm": FEW, "aft": {**FEW, "learning_rate": 0.001}}}))
    same = {cell.key for cell in before.training} & {cell.key for cell in after.training}
    assert {cell.stage.kind for cell in before.training if cell.key in same} == {"msm"}
    assert [cell.key for cell in before.corpora] == [cell.key for cell in after.corpora]


def test_a_run_makes_everything_once(experiment: Experiment, tmp_path: Path) -> None:
    missing = status(experiment, tmp_path / "runs", tmp_path / "logs")
    assert missing.counts == {"missing": 2 + 3 + 4}
    outcome = go(experiment, tmp_path)
    reasons = status(experiment, tmp_path / "runs", tmp_path / "logs")
    assert not outcome.failed and len(outcome.made) == 9, reasons
    assert reasons.counts == {"done": 9}
    logs = [read_eval_log(info) for info in list_eval_logs(str(tmp_path / "logs" / "tiny"))]
    assert {log.eval.metadata["arm"] for log in logs} == {"base", "MSM", "MSM+AFT", "aft:cheese-america"}
    assert all(log.status == "success" and len(log.samples) == 6 for log in logs)
    trained = [log for log in logs if log.eval.metadata["arm"] == "MSM+AFT"]
    assert trained[0].eval.metadata["seed"] == 1 and trained[0].eval.metadata["recipe"] == "laptop"

    before = files(tmp_path)
    again = go(experiment, tmp_path)
    assert not again.made and len(again.standing) == 9
    after = files(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} <= {str(tmp_path / "runs" / "tiny" / "experiment.json")}


def test_a_failing_cell_does_not_stop_the_others(experiment: Experiment, tmp_path: Path) -> None:
    places = Places.of(experiment, tmp_path / "runs", tmp_path / "logs")
    (msm,) = [cell for cell in plan(experiment).training if cell.stage.kind == "msm"]
    blocked = msm.folder(places.root)
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the checkpoint should be")
    outcome = go(experiment, tmp_path)
    assert [name for name in outcome.failed] == [msm.name]
    assert len(outcome.waiting) == 3 and "aft:cheese-america s1" in outcome.made and "base" in outcome.made
    found = {cell.name: cell for cell in status(experiment, tmp_path / "runs", tmp_path / "logs").cells}
    assert found[msm.name].state == "failed" and "exists" in found[msm.name].detail

    blocked.unlink()
    mended = go(experiment, tmp_path)
    assert not mended.failed and len(mended.made) == 4
    assert status(experiment, tmp_path / "runs", tmp_path / "logs").counts == {"done": 9}


def test_logs_of_other_settings_are_put_aside(experiment: Experiment, tmp_path: Path) -> None:
    base_only = experiment.model_copy(update={"arms": {"base": ""}})
    assert not go(base_only, tmp_path).failed
    changed = experiment.evals[0].model_copy(update={"args": {**experiment.evals[0].args, "limit_per_value": 2}})
    other = base_only.model_copy(update={"evals": (changed,)})
    assert status(other, tmp_path / "runs", tmp_path / "logs").counts == {"missing": 1, "stale": 1}
    assert not go(other, tmp_path).failed
    assert len(list((tmp_path / "logs" / "tiny").iterdir())) == 1
    assert status(other, tmp_path / "runs", tmp_path / "logs").counts == {"done": 1, "stale": 1}


def test_a_spent_budget_stops_before_the_next_cell(experiment: Experiment, tmp_path: Path) -> None:
    tight = experiment.model_copy(update={"budget": experiment.budget.model_copy(update={"hours": 1e-9})})
    outcome = go(tight, tmp_path)
    assert outcome.stopped is not None and "hours" in outcome.stopped and not outcome.made
    assert len(go(experiment, tmp_path).made) == 9


def test_two_runs_of_one_experiment_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    from filelock import FileLock

    state = tmp_path / "runs" / "tiny"
    state.mkdir(parents=True)
    with FileLock(state / "lock"), pytest.raises(RequestError, match="Another process"):
        go(experiment, tmp_path)


@pytest.mark.parametrize("name", shipped())
def test_a_dry_run_prices_every_cell_and_writes_nothing(name: str, tmp_path: Path) -> None:
    experiment = load_experiment(name)
    found = costs.cost(experiment, "h100", tmp_path / "runs", tmp_path / "logs")
    assert not list(tmp_path.iterdir())
    made = plan(experiment)
    assert len(found.cells) == len(made.corpora) + len(made.training) + len(made.evaluations)
    assert (found.total("hours") or 0) > 0 and (found.total("rollouts") or 0) > 0
    assert not [reason for reason in found.unknown if "hours" in reason] and not found.warnings
    json.dumps(found.model_dump(mode="json"))


def test_an_unknown_price_is_absent_and_named(experiment: Experiment, tmp_path: Path) -> None:
    arms: dict[str, Any] = {"arms": {"base": ""}, "base_parameters": 1e9, "grader": "nobody/knows"}
    judged = experiment.evals[0].model_copy(update={"task": "agentic_misalignment", "args": {}, "samples": 27})
    found = costs.cost(experiment.model_copy(update={**arms, "evals": (judged,)}), "h100", tmp_path, tmp_path)
    assert found.total("dollars") is None and any("nobody/knows" in reason for reason in found.unknown)


def test_an_interrupt_that_a_cell_swallows_stops_the_run_behind_it(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def swallow(job: making.Job) -> bool:
        made.append(job.name)
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return making.make(job)

    monkeypatch.setattr(local, "make", swallow)
    outcome = go(experiment, tmp_path)
    assert outcome.stopped == "it was interrupted" and made == list(outcome.made) and len(made) == 1
    monkeypatch.undo()
    assert go(experiment, tmp_path).stopped is None


def test_an_interrupted_evaluation_that_inspect_calls_a_success_is_not_done(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at some moments `eval_set` gives back success and no log, its samples cancelled on disk."""
    monkeypatch.setattr("inspect_ai.eval_set", lambda *tasks, **how: (True, []))
    outcome = go(experiment, tmp_path)
    assert outcome.stopped == "it was interrupted"
    assert not list((tmp_path / "logs").rglob(DONE_FILE))
    monkeypatch.undo()
    assert go(experiment, tmp_path).stopped is None
    assert list((tmp_path / "logs").rglob(DONE_FILE))
