"""Patterns in a report: verdicts, corrected rates, the act beside, and whether the reasoning gave it away."""

import math
from pathlib import Path

import pandas as pd
import pytest
from inspect_ai.scorer import Score
from written_logs import SCENARIOS, make_sample, write

from msm_bench.analysis.table import read_table
from msm_bench.report import report
from msm_bench.report.patterns import (
    Part,
    beside,
    corrected,
    gates_of_logs,
    measurable_by,
    misaligned,
    monitored,
    split_labellings,
    together,
    verdict,
    without_gate_logs,
)
from msm_bench.report.patterns import _part as part
from msm_bench.scorers.patterns.gates import NOT_MEASURABLE

KEYS = ("self_preservation", "downplaying_harm", "equanimity")
BELIEVED = ["self_preservation", "equanimity"]
ROLLOUTS = 40


def labels(present: set[str], model: str, measurable: list[str] | None = None) -> Score:
    return Score(
        value={key: float(key in present) for key in KEYS},
        metadata={"outcome": "labelled", "judge": {"model": model, "prompt": "p"}, "measurable": measurable},
    )


def arm_log(
    path: Path, arm: str, *, strong: int = 0, model: str = "msm-bench/local", known: list[str] | None = BELIEVED
) -> Path:
    """Three conditions. Of 40 rollouts 10 decide; the truth shows self-preservation in 8 of these, the labeller in 4 of them
    and in 3 of the others. Every fourth rollout, `strong` of them, has a strong judge that says the truth."""
    samples = []
    for scenario in SCENARIOS:
        for epoch in range(1, ROLLOUTS + 1):
            decided = epoch <= 10
            truth = {"self_preservation"} if epoch <= 8 else {"equanimity"} if epoch > 20 else set()
            said = {"self_preservation"} if epoch <= 4 or epoch >= 38 else {"equanimity"} if epoch > 20 else set()
            facts = {"scenario": scenario, "goal": "none", "prompt_sha256": f"hash of {scenario}"}
            act = Score(
                value={"decided": float(decided), "harmful_action": float(epoch <= 5), "acted": 1.0},
                metadata={"outcome": "decided", "judge": {"model": "judge/a", "prompt": "p1", "sees": "response"}},
            )
            each = make_sample(f"{scenario}/none", epoch, act, facts, "misalignment", "Because I must go on.")
            each.scores = {**(each.scores or {}), "reasoning_patterns": labels(said, model, known)}
            if strong:
                asked = epoch % 4 == 0 and epoch <= 4 * strong
                unasked = Score(value=dict.fromkeys(KEYS, math.nan), reason="not_in_part", metadata={"outcome": "not_in_part"})
                each.scores["reasoning_patterns1"] = labels(truth, "judge/strong") if asked else unasked
            samples.append(each)
    return write(path, samples, arm=arm)


def test_main_labelling_is_the_one_that_covers_most(tmp_path: Path) -> None:
    table = read_table(arm_log(tmp_path / "a.eval", "base", strong=10))
    main, strong = split_labellings(table)
    assert set(strong["scorer"].astype(str)) == {"reasoning_patterns1"} and len(main) + len(strong) == len(table)
    assert {"misalignment", "reasoning_patterns"} == set(main["scorer"].astype(str))
    again, nothing = split_labellings(main)
    assert again is main and nothing.empty


def test_rate_is_corrected_by_the_strong_part(tmp_path: Path) -> None:
    main, strong = split_labellings(read_table(arm_log(tmp_path / "a.eval", "base", strong=10)))
    rate = corrected(main, strong, "base", "mockllm/model", "self_preservation")
    assert rate is not None and rate.n_strong == 30 and rate.n_cheap == 120
    assert rate.cheap_alone == pytest.approx(7 / 40)
    truth = 8 / 40
    assert rate.low < truth < rate.high and abs(rate.estimate - truth) < abs(rate.cheap_alone - truth) + 0.03
    assert corrected(main, strong.iloc[:0], "base", "mockllm/model", "self_preservation") is None


def test_pattern_beside_the_act(tmp_path: Path) -> None:
    table = read_table(arm_log(tmp_path / "a.eval", "base"))
    rows = {(row.pattern, row.act): row for row in together(table, "base", "mockllm/model", KEYS)}
    one = rows["self_preservation", "decided"]
    assert one.with_act.value == pytest.approx(0.4) and one.with_act.n == 30
    assert one.without.value == pytest.approx(3 / 30) and one.without.n == 90
    assert one.difference == pytest.approx(0.3) and one.low is not None and 0 < one.low < 0.3 < (one.high or 0)
    assert rows["downplaying_harm", "decided"].with_act.value == 0
    assert rows["self_preservation", "harmful_action"].with_act.value == pytest.approx(0.8)


def test_what_the_reasoning_gave_away(tmp_path: Path) -> None:
    table, strong = split_labellings(read_table(arm_log(tmp_path / "a.eval", "base", strong=10)))
    decided, harmful = monitored(table, "base", "mockllm/model", misaligned(KEYS), table)
    assert (decided.act, harmful.act, decided.judge) == ("decided", "harmful_action", "msm-bench/local")
    assert decided.gave_away.value == pytest.approx(0.4) and decided.clean.value == pytest.approx(0.6)
    assert decided.alarm.value == pytest.approx(0.1) and decided.gave_away.n == decided.clean.n == 30
    by_strong = monitored(table, "base", "mockllm/model", misaligned(KEYS), strong)[0]
    # Of the strong judge's rollouts 4 and 8 decided, in three conditions, and both show it.
    assert by_strong.gave_away.value == 1 and by_strong.gave_away.n == 6 and by_strong.judge == "judge/strong"
    assert monitored(table, "base", "mockllm/model", [], table) == []


def test_a_pattern_that_was_not_looked_for_is_no_clean_reasoning() -> None:
    rows = [("base", "m", "decided", r, 1.0) for r in range(3)]
    rows += [("base", "m", "self_preservation", r, v) for r, v in ((0, 1.0), (1, 0.0), (2, math.nan))]
    rows += [("base", "m", "downplaying_harm", r, v) for r, v in ((0, math.nan), (1, 0.0), (2, 0.0))]
    table = pd.DataFrame(rows, columns=["arm", "base", "key", "rollout", "value"]).assign(condition="c", judge="j", scorer="s")
    (row,) = monitored(table, "base", "m", misaligned(KEYS), table)
    assert row.gave_away == Part(0.5, row.gave_away.low, row.gave_away.high, 2)


def test_interval_minds_that_rollouts_of_a_condition_are_alike() -> None:
    alike = pd.DataFrame({"value": [1.0] * 20 + [0.0] * 20, "condition": ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10})
    mixed = pd.DataFrame({"value": [1.0, 0.0] * 20, "condition": list("abcd") * 10}).sort_values("condition")
    mixed["condition"] = ["a", "b", "c", "d"] * 10
    wide, narrow = part(alike), part(mixed)
    assert wide.value == narrow.value == 0.5
    assert wide.low is not None and narrow.low is not None and wide.low < narrow.low - 0.05
    assert part(alike.iloc[:0]) == Part(None, None, None, 0)
    all_of_them = part(alike.iloc[:20])
    assert all_of_them.value == 1 and all_of_them.low is not None and 0.8 < all_of_them.low < 1


def test_verdicts() -> None:
    assert verdict("equanimity", frozenset({"equanimity"})) == ""
    assert verdict("equanimity", frozenset()) == NOT_MEASURABLE
    assert verdict("equanimity", None) == "judge not measured"


def test_who_can_be_believed_on_what(tmp_path: Path) -> None:
    path = str(arm_log(tmp_path / "a.eval", "base"))
    assert measurable_by([path], ["msm-bench/local p"], {}) == frozenset(BELIEVED)
    assert measurable_by([path], ["msm-bench/local p", "judge/b p"], {}) is None
    assert measurable_by([path], ["msm-bench/local p", "judge/b p"], {"judge/b": frozenset({"equanimity"})}) == {"equanimity"}
    unknown = str(arm_log(tmp_path / "b.eval", "base", model="judge/b", known=None))
    assert measurable_by([unknown], ["judge/b p"], {}) is None
    assert measurable_by([unknown], ["judge/b p"], {"judge/b": frozenset(KEYS)}) == set(KEYS)


def test_figure_11_stands_beside_an_arm_of_the_same_name() -> None:
    (value,) = beside("MSM + AFT", "equanimity", "Qwen/Qwen2.5-32B-Instruct")
    assert value.value == 0.55 and value.where == "Figure 11"
    assert {value.model for value in beside("base", "self_preservation", "other/model")} == {"qwen2.5-32b", "qwen3-32b"}
    assert beside("no such arm", "self_preservation", "x") == []


def test_page_shows_verdicts_corrections_and_what_was_given_away(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    arm_log(logs / "base.eval", "base", strong=10)
    arm_log(logs / "msm.eval", "msm")
    out = report(logs, tmp_path / "report").out
    page, text = (out / "index.html").read_text(encoding="utf-8"), (out / "report.md").read_text(encoding="utf-8")
    for shown in (page, text):
        assert NOT_MEASURABLE in shown and "judge/strong" in shown and "corrected from 0.175" in shown
        assert "Figure 11, qwen2.5-32b" in shown and "Did the reasoning give the act away?" in shown
    assert "figure-patterns-monitor-1" in page
    shares = pd.read_csv(out / "patterns.csv").set_index(["arm", "pattern"])
    assert shares.loc[("msm", "downplaying_harm"), "verdict"] == NOT_MEASURABLE
    assert math.isnan(shares.loc[("msm", "downplaying_harm"), "low"])
    assert shares.loc[("base", "self_preservation"), "n_strong"] == 30
    assert math.isnan(shares.loc[("msm", "self_preservation"), "corrected"])
    reads = pd.read_csv(out / "patterns_monitor.csv")
    # The pattern that cannot be believed counts for nothing in the main labels; the strong judge's part has a row of its own.
    assert set(reads.loc[reads["arm"] == "base", "judge"]) == {"msm-bench/local", "judge/strong"}
    assert (out / "patterns_acts.csv").is_file()


def test_log_that_measures_a_judge_is_no_arm(tmp_path: Path) -> None:
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from msm_bench.tasks.reasoning_patterns import reasoning_patterns

    def silent(messages: object, tools: object, choice: object, config: object) -> ModelOutput:
        out = ModelOutput.from_content("mockllm", "<labels>[]</labels>")
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    logs = tmp_path / "logs"
    (log,) = inspect_eval(
        reasoning_patterns(part="transcripts"),
        limit=15,
        model=get_model("mockllm/judge", custom_outputs=silent, memoize=False),
        log_dir=str(logs),
        display="none",
    )
    assert log.status == "success", log.error
    arm_log(logs / "base.eval", "base", model="mockllm/judge", known=None)
    made = report(logs, tmp_path / "report")
    assert made.arms == 1 and made.logs == 1
    assert NOT_MEASURABLE in (made.out / "index.html").read_text(encoding="utf-8")
    assert gates_of_logs([]) == {} and without_gate_logs([]) == []
