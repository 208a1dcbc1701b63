"""`bench`: a suite on one model, resumable, and its place among others."""

from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai.log import list_eval_logs
from inspect_ai.model._model import active_model

from msm_bench.engine import running_model
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.experiment import bench
from msm_bench.experiment.bench import load_suite, price, suites

SUITE = """
summary: Two short tasks.
evals:
  - {task: value_preferences, args: {value: america, kind: item, limit_per_value: 3}, elsewhere: {method: generation}}
  - task: value_preferences
    args: {value: affordability, kind: item, limit_per_value: 2}
    epochs: 2
    elsewhere: {method: generation}
"""
ARGS = {"dtype": "float32", "device": "cpu"}


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(SUITE, encoding="utf-8")
    return str(path)


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.eval")}


def test_a_model_goes_through_a_suite_once(suite: str, model_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = str(model_folder("llama"))
    before = active_model()
    found = bench.bench(model, suite, logs=tmp_path / "logs", grader="mockllm/judge", model_args=ARGS)
    assert found.logs.parent == tmp_path / "logs" / "bench" and len(list_eval_logs(str(found.logs))) == 2
    assert active_model() is before and running_model() is None
    keys = {(one.task, one.key): one for one in found.comparison.estimates if one.group == "all"}
    assert keys["value_preferences", "aligned"].n == 3 * 2 + 2 * 2 * 2
    first = times(found.logs)
    again = bench.bench(model, suite, logs=tmp_path / "logs", grader="mockllm/judge", model_args=ARGS)
    assert times(again.logs) == first and again.comparison == found.comparison and found.places == ()

    other = bench.bench(model, suite, logs=tmp_path / "logs", grader="mockllm/other", model_args=ARGS)
    assert other.logs != found.logs


def test_the_place_among_published_numbers_and_among_logs(
    suite: str, model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    model = str(model_folder("llama"))
    logs = tmp_path / "logs"
    alone = bench.bench(model, suite, logs=logs, grader="mockllm/judge", model_args=ARGS)
    again = bench.bench(model, suite, against="published:figure-2", logs=logs, grader="mockllm/judge", model_args=ARGS)
    table = [place for place in again.places if (place.task, place.group) == ("value_preferences", "america")]
    assert [place.own for place in table].count(True) == 1 and len(table) > 1
    assert [place.estimate for place in table] == sorted((place.estimate for place in table), reverse=True)
    assert again.logs == alone.logs and bench.render(again)
    beside = bench.bench(model, suite, against=str(alone.logs), logs=logs, grader="mockllm/judge", model_args=ARGS)
    both = [place for place in beside.places if (place.task, place.key, place.group) == ("value_preferences", "aligned", "all")]
    assert [place.own for place in both].count(True) == 1 and len(both) == 2 and both[0].estimate == both[1].estimate


def test_a_wrong_request_spends_nothing(suite: str, tmp_path: Path) -> None:
    for against, message in (("published:nobody", "published name"), (str(tmp_path / "gone"), "no log or folder")):
        with pytest.raises(RequestError, match=message):
            bench.bench("msm/nothing", suite, against=against, logs=tmp_path / "logs")
    with pytest.raises(UnknownNameError, match="full, quick"):
        bench.bench("smollm2-135m", "long", logs=tmp_path / "logs")
    broken = tmp_path / "broken.yaml"
    broken.write_text("summary: x\nevals: [{task: value_preferences, epoch: 2}]", encoding="utf-8")
    with pytest.raises(RequestError, match=r"does not fit.*epoch"):
        load_suite(broken)
    assert not (tmp_path / "logs").exists()


def test_a_task_that_does_not_end_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(SUITE.replace(", elsewhere: {method: generation}", ""), encoding="utf-8")
    with pytest.raises((WorkError, RequestError)):
        bench.bench("mockllm/model", str(path), logs=tmp_path / "logs", grader="mockllm/judge")


def test_the_price_is_counted_without_a_model() -> None:
    assert suites() == ["full", "quick"]
    for name, rollouts in (("quick", 270 + 2 * 2 * 40), ("full", 675)):
        found = price("msm/Qwen/Qwen3-32B", name, "anthropic/claude-sonnet-4-6")
        (cell,) = found.cells
        assert cell.rollouts is not None and cell.rollouts >= rollouts and cell.judge_calls and cell.dollars and cell.hours
    assert found.unknown == () and cell.judge_calls < cell.rollouts
