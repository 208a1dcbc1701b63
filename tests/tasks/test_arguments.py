"""An argument that a task does not take stops it, where Inspect alone would run it without."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, task
from inspect_ai._eval.registry import task_create
from inspect_ai._util.registry import registry_lookup

import msm_bench._registry  # noqa: F401  (makes the tasks known)
from msm_bench.errors import UnknownNameError
from msm_bench.tasks.arguments import known_arguments
from msm_bench.tasks.value_preferences import value_preferences

TASKS = ["agentic_misalignment", "reasoning_patterns", "spec_qa", "value_preferences"]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_refuses_what_it_does_not_take(name: str) -> None:
    made: Any = registry_lookup("task", f"msm_bench/{name}")
    taken = [each for each in inspect.signature(made).parameters if each != "unknown"]
    with pytest.raises(UnknownNameError, match=f"argument of '{name}' '{taken[0]}s'. Did you mean '{taken[0]}'"):
        task_create(f"msm_bench/{name}", **{f"{taken[0]}s": "all"})


def test_through_inspect(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dimension'"):
        eval("msm_bench/spec_qa", task_args={"dimensions": "all"}, model="mockllm/model", log_dir=str(tmp_path), display="none")
    assert not list(tmp_path.iterdir())


def test_the_log_holds_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    given = {"value": "america", "method": "generation", "limit_per_value": 1}
    [log] = eval(
        "msm_bench/value_preferences", task_args=given, model="mockllm/model", log_dir=str(tmp_path), display="none", limit=0
    )
    assert log.eval.task_args_passed == given
    assert set(log.eval.task_args) == set(inspect.signature(value_preferences).parameters) - {"unknown"}


def test_a_task_is_called_as_before() -> None:
    @task
    @known_arguments
    def counted(first: int, second: int = 2) -> Task:
        """What it is."""
        return Task(metadata={"sum": first + second})

    assert counted(1).metadata == {"sum": 3}
    assert counted(1, second=4).metadata == {"sum": 5}
    assert (counted.__name__, counted.__doc__) == ("counted", "What it is.")
