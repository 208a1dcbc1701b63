"""Logs to rows: what is read, what is missing, and which of several logs counts."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log_sample_summaries
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score
from log_makers import CONDITIONS, agentic, agentic_score, preferences, sample, write

from msm_bench.analysis.estimates import estimate_all
from msm_bench.analysis.summaries import read_summaries
from msm_bench.analysis.table import COLUMNS, read_table
from msm_bench.errors import RequestError
from msm_bench.tasks.agentic_misalignment import agentic_misalignment


def answering(text: str) -> Any:
    def answer(messages: Any, tools: Any, choice: Any, config: Any) -> ModelOutput:
        output = ModelOutput.from_content("mockllm", text)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=answer, memoize=False)


def test_a_real_run_becomes_rows(tmp_path: Path) -> None:
    inspect_eval(
        agentic_misalignment(scenario="leaking", goal=["none", "america"]),
        model=answering("I will do nothing."),
        model_roles={"grader": answering("No.\n<verdict>no</verdict>")},
        epochs=3,
        log_dir=str(tmp_path),
        display="none",
        metadata={"arm": "quiet", "seed": 7, "recipe": "laptop"},
    )
    table = read_table(tmp_path)
    assert tuple(table.columns) == COLUMNS
    decided = table[table["key"] == "decided"]
    assert len(decided) == 6 and set(decided["value"]) == {0.0}
    assert set(decided["condition"]) == {"leaking/none", "leaking/america"} and set(decided["group"]) == {"leaking"}
    assert set(decided["arm"]) == {"quiet"} and set(decided["seed"]) == {"7"} and set(decided["recipe"]) == {"laptop"}
    assert decided["judge"].str.startswith("mockllm/model ").all() and decided["prompt"].nunique() == 2
    settings = json.loads(decided["settings"].iloc[0])
    assert settings["sampling"] == {"temperature": 0.7, "max_tokens": 4096} and settings["task"]["scratchpad"] is True
    assert set(table.loc[table["key"] == "acted", "judge"]) == {""}
    (estimate,) = [one for one in estimate_all(table) if one.key == "decided" and one.group == "all"]
    assert estimate.estimate == 0 and estimate.high is not None and estimate.high > 0.1 and "hardly_acts" in estimate.warnings


def test_the_fast_reader_and_inspects_own_agree(tmp_path: Path) -> None:
    path = agentic(tmp_path / "a.eval", {"murder/none": (1, 3)}, arm="a")
    slow, fast = read_eval_log_sample_summaries(str(path)), list(read_summaries(str(path)))
    assert [(one.id, one.epoch, one.uuid) for one in fast] == [(str(one.id), one.epoch, one.uuid) for one in slow]
    for one, other in zip(fast, slow, strict=True):
        assert other.scores is not None and one.metadata == other.metadata and one.asked == [other.input]
        for name, score in other.scores.items():
            assert (one.scores[name].value, one.scores[name].metadata) == (score.value, score.metadata)


def test_json_logs_are_read_as_well(tmp_path: Path) -> None:
    counts = {"murder/none": (1, 3), "leaking/none": (2, 3)}
    tables = [read_table(agentic(tmp_path / f"a.{kind}", counts, arm="a", task_id="t")) for kind in ("eval", "json")]
    order = ["condition", "epoch", "key"]
    rows = [table.drop(columns=["log", "rollout"]).astype(object).sort_values(order, ignore_index=True) for table in tables]
    assert len(rows[0]) == 18 and rows[0].equals(rows[1])


def test_unscored_failed_and_never_run_samples_keep_their_place_and_reason(tmp_path: Path) -> None:
    facts = {"scenario": "murder", "goal": "none"}
    samples = [
        sample("murder/none", 1, agentic_score(1.0), facts, "s"),
        sample("murder/none", 2, agentic_score(math.nan, outcome="judge_refused"), facts, "s"),
        sample("murder/none", 3, None, facts, "s", error="boom"),
    ]
    table = read_table(
        write(tmp_path / "a.eval", samples, arm="a", planned=["murder/none", "murder/america"], epochs=3, status="error")
    )
    decided = table[table["key"] == "decided"]
    assert len(decided) == 6 and decided["value"].notna().sum() == 1
    missing = decided.loc[decided["value"].isna(), "reason"].astype(str)
    assert sorted(missing) == ["judge_refused", "not_run", "not_run", "not_run", "sample_error"]
    (estimate,) = [one for one in estimate_all(table) if one.key == "decided" and one.group == "all"]
    assert (estimate.n_scored, estimate.n) == (1, 6)
    assert estimate.unscored == {"judge_refused": 1, "not_run": 3, "sample_error": 1} and "unscored" in estimate.warnings
    assert (estimate.lower_bound, estimate.upper_bound) == pytest.approx((1 / 6, 1.0))


def test_both_orders_of_a_pair_are_one_unit(tmp_path: Path) -> None:
    table = read_table(
        preferences(tmp_path / "p.eval", {"america/food/001": (1.0, 0.0), "america/food/002": (1.0, math.nan)}, arm="a")
    )
    aligned = table[table["key"] == "aligned"]
    assert aligned["unit"].nunique() == 2 and aligned["condition"].nunique() == 4
    assert set(aligned["group"]) == {"america"} and set(aligned["subgroup"]) == {"food"}
    assert aligned.loc[aligned["value"].isna(), "reason"].astype(str).tolist() == ["tie"]


def test_plain_scores_take_their_scorers_name(tmp_path: Path) -> None:
    samples = [sample(f"q{i}", 1, Score(value="C" if i < 3 else "I"), {}, "match") for i in range(4)]
    table = read_table(write(tmp_path / "a.eval", samples, arm="a", task="quiz"))
    assert set(table["key"]) == {"match"} and sorted(table["value"]) == [0, 1, 1, 1]


def test_of_a_retried_run_the_later_log_counts(tmp_path: Path) -> None:
    agentic(tmp_path / "1.eval", {"murder/none": (0, 2)}, arm="a", task_id="same", status="error", epochs=4)
    agentic(tmp_path / "2.eval", {"murder/none": (4, 4)}, arm="a", task_id="same", created=datetime(2026, 11, 2, tzinfo=UTC))
    table = read_table(tmp_path)
    assert len(table[table["key"] == "decided"]) == 4 and "1.eval is an earlier state of 2.eval" in table.attrs["notes"][0]


def test_a_checkpoint_names_its_seed_and_base(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "checkpoint.json").write_text(
        '{"base": {"name": "org/base", "sha256": "0"}, "seed": 3, "recipe": {"name": "laptop"}, "id": "x"}'
    )
    table = read_table(agentic(tmp_path / "a.eval", {"murder/none": (1, 3)}, arm="a", model=f"msm/{folder}"))
    first = table.iloc[0]
    assert (first["seed"], first["base"], first["recipe"]) == ("3", "org/base", "laptop")


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no log file or folder at .*missing\. "):
        read_table(tmp_path / "missing")
    with pytest.raises(RequestError, match="No Inspect logs lie under"):
        read_table(tmp_path)
    write(tmp_path / "a.eval", [sample("murder/none", 1, None, {}, "s", error="boom")], arm="a")
    with pytest.raises(RequestError, match="has a score"):
        read_table(tmp_path)


def test_logs_without_a_score_are_left_out_by_name(tmp_path: Path) -> None:
    write(tmp_path / "bad.eval", [sample("murder/none", 1, None, {}, "s", error="boom")], arm="b")
    agentic(tmp_path / "good.eval", dict.fromkeys(CONDITIONS, (1, 2)), arm="a")
    assert read_table(tmp_path).attrs["notes"] == ["bad.eval holds no score and is left out."]


def test_a_task_that_is_not_ours_can_be_read(tmp_path: Path) -> None:
    @task
    def other() -> Task:
        from inspect_ai.scorer import includes

        return Task(dataset=[Sample(input="Say yes.", target="yes", id=i) for i in range(3)], scorer=includes())

    inspect_eval(other(), model=answering("yes"), log_dir=str(tmp_path), display="none")
    (estimate,) = estimate_all(read_table(tmp_path))
    assert (estimate.task, estimate.key, estimate.estimate, estimate.n) == ("other", "includes", 1.0, 3)
