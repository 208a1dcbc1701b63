"""What was declared and is not there, what may not stand in one table, and requests that are wrong."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from written_logs import agentic, patterns, preferences

from msm_bench.analysis.declared import declare
from msm_bench.errors import MsmBenchError, RequestError, UnknownNameError
from msm_bench.report import load_choices, render, report

FEW = {"murder/none": (2, 4), "leaking/none": (3, 4)}
CHOICES = """
title: {title}
arms:
  base: Base model
  aft: {{label: AFT alone}}
  da: Deliberative alignment
contrasts: [aft vs base, da vs base]
deviations: [The documents were composed.]
transcripts: {{conditions: 1, rollouts: 1}}
"""


def index(out: Path) -> str:
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    agentic(tmp_path / "logs" / "base.eval", FEW, arm="base", unscored=1)
    agentic(tmp_path / "logs" / "aft.eval", {"murder/none": (0, 4), "leaking/none": (1, 4)}, arm="aft", metadata={"seed": 0})
    return tmp_path / "logs"


def test_a_half_made_experiment_is_reported_by_what_it_declares(logs: Path, tmp_path: Path) -> None:
    declare(logs, ["aft vs base", "msm vs base"])
    report(logs, tmp_path / "out")
    page = index(tmp_path / "out")
    assert "aft vs base" in page and "msm vs base: msm has no log" in page


def test_holes_are_shown_and_a_report_replaces_the_one_before(logs: Path, tmp_path: Path) -> None:
    preferences(logs / "values.eval", {"affordability": 0.5}, arm="base", pairs=4)
    choices, out = tmp_path / "choices.yaml", tmp_path / "out"
    choices.write_text(CHOICES.format(title="First"), encoding="utf-8")
    report(logs, out, choices=choices)
    choices.write_text(CHOICES.format(title="Second"), encoding="utf-8")
    found = report(logs, out, choices=choices)
    page = index(out)
    assert "<title>Second</title>" in page and sorted(path.name for path in tmp_path.iterdir()) == [
        "choices.yaml",
        "logs",
        "out",
    ]
    assert page.index("Base model") < page.index("AFT alone") < page.index("Deliberative alignment")
    assert page.count("declared, no log") >= 3 and "da vs base: da has no log" in page and "declared, cannot be made" in page
    assert "not run on this task" in page and "The documents were composed." in page
    assert "declared, no log" in (out / "figures" / "arms-agentic-misalignment.svg").read_text(encoding="utf-8")
    assert "3 of 4" in page and "bounds" in page and "above 2% unscored" in page and "judge_refused: 2" in page
    assert len(list((out / "transcripts").iterdir())) == 2
    names = {line.arm: line for line in found.lines if line.task == "agentic_misalignment"}
    assert names["Deliberative alignment"].hole and names["Base model"].estimate == pytest.approx((2 / 3 + 1) / 2)
    console = Console(record=True, width=120)
    console.print(render(found))
    said = console.export_text()
    assert "declared, no log" in said and "6 of 8" in said and "index.html" in said


def test_different_judges_are_refused_or_labelled(logs: Path, tmp_path: Path) -> None:
    agentic(logs / "other.eval", FEW, arm="other", judge="judge/b")
    with pytest.raises(RequestError, match=r"not measured alike on agentic_misalignment.*judge/a.*judge/b.*insist"):
        report(logs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report(logs, tmp_path / "out", insist=True)
    page = index(tmp_path / "out")
    assert "Not measured alike:" in page and "judge/a p1 response | judge/b p1 response" in page
    assert "Not measured alike:" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({"metadata": {"recipe": "paper"}}, "recipe"),
        ({"temperature": 1.0}, "temperature"),
        ({"task_args": {"scratchpad": False}}, "scratchpad"),
    ],
)
def test_different_recipes_and_settings_are_refused(logs: Path, tmp_path: Path, changes: dict, aspect: str) -> None:
    agentic(logs / "msm.eval", FEW, arm="msm", metadata={"recipe": "laptop"})
    agentic(logs / "other.eval", FEW, arm="other", **changes)
    with pytest.raises(RequestError, match=aspect):
        report(logs, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("titel: x", "did you mean 'title'"),
        ("arms: {aft: {labl: x}}", "did you mean 'label'"),
        ("transcripts: {rollouts: 0}", "transcripts.rollouts"),
        ("[1, 2", "no YAML"),
        ("contrasts: [msm vs base]", "Unknown arm 'msm'"),
        ("contrasts: [aft]", "is no contrast"),
    ],
)
def test_choices_that_do_not_fit(logs: Path, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "choices.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError, match=says):
        report(logs, tmp_path / "out", choices=file)


def test_wrong_requests(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        load_choices(tmp_path / "absent.yaml")
    with pytest.raises(UnknownNameError, match="Unknown arm 'msm'"):
        report(logs, tmp_path / "out", contrasts=["msm vs base"])
    with pytest.raises(MsmBenchError, match="Unknown published name"):
        report(logs, tmp_path / "out", against="published:gpt-2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RequestError, match="no report"):
        report(logs, tmp_path / "full")
    assert (tmp_path / "full" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_published_numbers_are_hollow_and_never_taken_for_our_own(tmp_path: Path) -> None:
    agentic(tmp_path / "logs" / "base.eval", FEW, arm="base")
    agentic(tmp_path / "logs" / "mine.eval", FEW, arm="mine", metadata={"seed": 1})
    choices = tmp_path / "choices.yaml"
    choices.write_text("arms: {base: , mine: {label: Mine, paper: msm+aft}}\ntranscripts: {conditions: 0}\n", encoding="utf-8")
    report(tmp_path / "logs", tmp_path / "out", choices=choices, against="published:qwen2.5-32b")
    figure = json.loads((tmp_path / "out" / "figures" / "arms-agentic-misalignment.json").read_text(encoding="utf-8"))
    marks = [layer for layer in figure["hconcat"][0]["layer"] if layer["mark"].get("shape") == "diamond"]
    assert [(row["arm"], row["value"]) for row in marks[0]["data"]["values"]] == [("base", 0.68), ("mine".title(), 0.22)]
    assert marks[0]["mark"]["filled"] is False
    page = index(tmp_path / "out")
    assert "◇ 0.220 (Figure 4)" in page and "Claude Sonnet 4.6" in page and "Published numbers set beside" in page
    assert "Mine vs Figure 4: msm+aft" in page and "Mine vs Figure 4: aft<" not in page


def test_reasoning_patterns_beside_the_paper(tmp_path: Path) -> None:
    for arm, share in (("base", 0.6), ("msm+aft", 0.1)):
        shares = {"self_preservation": share, "personal_integrity": 1 - share, "my_own_pattern": 0.3}
        patterns(tmp_path / "logs" / f"{arm}.eval", shares, arm=arm)
    report(tmp_path / "logs", tmp_path / "out", against="published:figure-11/qwen2.5-32b")
    figures = {path.stem for path in (tmp_path / "out" / "figures").glob("patterns-*.svg")}
    assert figures == {"patterns-misaligned-1", "patterns-aligned-1", "patterns-other-1", "patterns-monitor-1"}
    page = index(tmp_path / "out")
    assert "Self-preservation as the overriding end" in page and "my_own_pattern" in page
    assert "◇ 0.460 (Figure 11, qwen2.5-32b)" in page
    assert 'id="task-agentic-misalignment"' in page and ">self_preservation</th>" not in page


def test_two_base_models_stand_in_two_tables(tmp_path: Path) -> None:
    for base in ("org/one", "org/two"):
        for arm in ("base", "aft"):
            path = tmp_path / "logs" / f"{base[4:]}-{arm}.eval"
            agentic(path, FEW, arm=arm, metadata={"base": base})
    found = report(tmp_path / "logs", tmp_path / "out", contrasts=["aft vs base within one"])
    assert {line.model for line in found.lines} == {"org/one", "org/two"} and len(found.lines) == 4
    page = index(tmp_path / "out")
    assert 'id="task-agentic-misalignment"' in page and 'id="task-agentic-misalignment-2"' in page
    assert len(list((tmp_path / "out" / "transcripts").iterdir())) == 4


def test_a_key_that_was_scored_twice_is_refused_or_shown_once(logs: Path, tmp_path: Path) -> None:
    agentic(logs / "twice.eval", FEW, arm="twice", again="judge/b")
    with pytest.raises(RequestError, match="metric"):
        report(logs, tmp_path / "out")
    report(logs, tmp_path / "out", insist=True)
    page = index(tmp_path / "out")
    assert "scored by misalignment, misalignment1: the tables show misalignment" in page
    assert "Agreement of judges" in page
    assert "on 8 rollouts that both judged (14 and 0 that one judged): agreement 1.000" in page
