"""What an experiment's file may say, and what a wrong one is told."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from msm_bench.errors import RequestError
from msm_bench.experiment.arms import Arm, Stage, expand, matched_control, parse_arm
from msm_bench.experiment.costs import cost
from msm_bench.experiment.running import checked, run
from msm_bench.experiment.settings import load_experiment, shipped

GOOD = {
    "name": "mine",
    "base": "msm/smollm2-135m",
    "arms": {"base": "", "both": "msm:philosophy aft:philosophy"},
    "evals": [{"task": "agentic_misalignment"}],
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return path


NAMES = st.from_regex(r"[a-z][a-z0-9/._-]{0,12}", fullmatch=True)
STAGES = st.builds(
    Stage,
    kind=st.sampled_from(["msm", "aft", "deliberative"]),
    source=NAMES,
    shares=st.lists(st.tuples(NAMES, st.integers(1, 30).map(lambda n: n / 100)), max_size=3).map(tuple),
)


@given(st.lists(STAGES, max_size=4))
def test_an_arm_reads_back_as_it_was_written(stages: list[Stage]) -> None:
    arm = Arm(stages=tuple(stages))
    again = parse_arm(arm.text)
    assert [(s.kind, s.source) for s in again.stages] == [(s.kind, s.source) for s in stages]
    for left, right in zip(again.stages, stages, strict=True):
        assert [name for name, _ in left.shares] == [name for name, _ in right.shares]
        assert [share for _, share in left.shares] == pytest.approx([share for _, share in right.shares])
    assert parse_arm(again.text) == again


def test_a_grid_is_every_pair() -> None:
    assert expand("msm:{a,b} aft:{c,d}") == ["msm:a aft:c", "msm:a aft:d", "msm:b aft:c", "msm:b aft:d"]
    assert expand("msm:a") == ["msm:a"]


def test_the_matched_control_leaves_out_the_first_stage() -> None:
    control = matched_control(parse_arm("msm:philosophy aft:philosophy+5%mix"))
    assert control is not None and control.text == "aft:philosophy+5%mix"
    assert matched_control(parse_arm("aft:philosophy")) is None and matched_control(parse_arm("")) is None


def test_a_matched_control_is_added_unless_switched_off(tmp_path: Path) -> None:
    assert list(load_experiment(write(tmp_path)).all_arms()) == ["base", "both", "aft:philosophy"]
    assert list(load_experiment(write(tmp_path, matched_control=False)).all_arms()) == ["base", "both"]
    named = {"base": "", "both": "msm:philosophy aft:philosophy", "AFT": "aft:philosophy"}
    assert list(load_experiment(write(tmp_path, arms=named)).all_arms()) == ["base", "both", "AFT"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": [1]}, "did you mean 'seeds'"),
        ({"evals": [{"task": "agentic_misalignment", "epoch": 3}]}, "did you mean 'epochs'"),
        ({"corpora": {"ofline": True}}, "did you mean 'offline'"),
        ({"serve": {"engine": "vllm", "arg": {}}}, "did you mean 'args'"),
        ({"serve": "sglang"}, "serve.engine"),
        ({"seeds": [1, 1]}, "a seed stands twice"),
        ({"arms": {"x": "msm philosophy"}}, "is no stage"),
        ({"arms": {"x": "aft:a+60%b+50%c"}}, "leave nothing"),
        ({"arms": {"x": "aft:a adapter:b"}}, "Name the adapter first"),
        ({"arms": {}}, "neither arms nor grid"),
        ({"evals": []}, "evals"),
        ({"name": "My experiment"}, "name"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        load_experiment(write(tmp_path, **changes))


@pytest.mark.parametrize(
    ("evaluation", "says"),
    [
        ({"task": "agentic_misalignmnt"}, "Did you mean 'agentic_misalignment'"),
        (
            {"task": "agentic_misalignment", "args": {"scenarios": "murder"}},
            "argument of 'agentic_misalignment'.*mean 'scenario'",
        ),
        ({"task": "agentic_misalignment", "args": {"scenario": "leaks"}}, "leaking"),
        ({"task": "inspect_evals/gsm8k", "args": {"fewshots": 3}}, "Did you mean 'fewshot'"),
    ],
)
def test_a_wrong_task_is_told_before_anything_is_made(tmp_path: Path, evaluation: dict[str, object], says: str) -> None:
    """By `run`, before it is put into the background, and by `--dry-run`."""
    wrong = load_experiment(write(tmp_path, evals=[evaluation]))
    with pytest.raises(RequestError, match=says):
        run(wrong, tmp_path / "runs", tmp_path / "logs")
    with pytest.raises(RequestError, match=says):
        cost(wrong, "h100", tmp_path / "runs", tmp_path / "logs")
    assert not (tmp_path / "runs").exists()


def test_a_task_that_only_the_cluster_has_is_no_mistake(tmp_path: Path) -> None:
    checked(load_experiment(write(tmp_path, evals=[{"task": "elsewhere/task", "args": {"any": 1}}])))


@pytest.mark.parametrize("name", shipped())
def test_the_tasks_of_every_shipped_experiment_are_right(name: str) -> None:
    checked(load_experiment(name))


def test_an_unknown_name_lists_the_library() -> None:
    with pytest.raises(RequestError, match="cheese-laptop"):
        load_experiment("cheese-labtop")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_experiment_loads(name: str) -> None:
    experiment = load_experiment(name)
    arms = experiment.all_arms()
    assert experiment.name == name and "base" in arms
    # Every declared contrast names arms that are there.
    for contrast in experiment.contrasts:
        a, _, rest = contrast.partition(" vs ")
        assert a in arms and any(rest == arm or rest.startswith(f"{arm} on ") for arm in arms), contrast
