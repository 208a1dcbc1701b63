"""What the manifests of checkpoints tell: stages, tokens, what was chosen, and the curves over them."""

import json
from pathlib import Path

import pytest
from inspect_ai.log import EvalLog, EvalSpec, EvalStats
from inspect_ai.model import ModelUsage
from made_checkpoints import checkpoint
from written_logs import CREATED, agentic

from msm_bench.report import report
from msm_bench.report.lineage import trace_model
from msm_bench.report.spending import spent

FEW = {"murder/none": (2, 4), "leaking/none": (3, 4)}


def test_the_stages_of_a_checkpoint(tmp_path: Path) -> None:
    msm = checkpoint(tmp_path / "msm", "msm", spec="philosophy", tokens=4000, rank="8")
    both = checkpoint(tmp_path / "both", "aft", spec="philosophy", tokens=500, parent=msm, notes=("It still fell.",))
    found = trace_model(f"msm/{both}")
    assert [stage.what for stage in found.stages] == ["msm(philosophy)", "aft(philosophy)"]
    assert found.series == "msm(philosophy) + aft(philosophy)" and found.problem is None and found.base == "smollm2-135m"
    assert found.tokens() == 2 * 4000 + 4 * 500 and found.tokens(documents=False) == 4 * 500
    chosen = {setting.name: setting for setting in found.stages[0].chosen}
    assert chosen["rank"].source == "--set" and chosen["rank"].value == "8"
    assert chosen["learning_rate"].source == "chosen" and chosen["learning_rate"].reason
    assert "schedule" not in chosen and "dropout" not in chosen and "seed" not in chosen
    assert found.stages[1].notes == ("It still fell.",)


def test_lineages_that_are_not_whole(tmp_path: Path) -> None:
    msm = checkpoint(tmp_path / "msm", "msm", spec="philosophy", tokens=4000)
    both = checkpoint(tmp_path / "both", "aft", spec="philosophy", tokens=500, parent=msm)
    (msm / "checkpoint.json").write_bytes((both / "checkpoint.json").read_bytes())
    assert "now holds another checkpoint" in str(trace_model(f"msm/{both}").problem)
    assert "not here" in str(trace_model(f"msm/{tmp_path / 'gone'}").problem)
    (both / "checkpoint.json").write_text("{}", encoding="utf-8")
    assert "checkpoint.json" in str(trace_model(f"msm/{both}").problem)
    for untrained in ("msm/smollm2-135m", "openai/gpt-4o", "mockllm/model"):
        assert trace_model(untrained).problem is None and trace_model(untrained).stages == ()


def test_dose_curves_over_both_counts_of_tokens(tmp_path: Path) -> None:
    msm = checkpoint(tmp_path / "runs" / "msm", "msm", spec="philosophy", tokens=4000)
    agentic(tmp_path / "logs" / "base.eval", FEW, arm="base", model="msm/smollm2-135m")
    agentic(tmp_path / "logs" / "msm.eval", FEW, arm="msm", model=f"msm/{msm}", metadata={"seed": 0})
    for tokens in (500, 1000):
        for arm, parent in (("aft", None), ("msm+aft", msm)):
            folder = checkpoint(
                tmp_path / "runs" / f"{arm}-{tokens}",
                "aft",
                spec="philosophy",
                tokens=tokens,
                parent=parent,
                token_budget=str(tokens),
            )
            agentic(
                tmp_path / "logs" / f"{arm}-{tokens}.eval",
                FEW,
                arm=f"{arm} {tokens}",
                model=f"msm/{folder}",
                metadata={"seed": 0},
            )
    report(tmp_path / "logs", tmp_path / "out")
    figure = json.loads((tmp_path / "out" / "figures" / "dose-agentic-misalignment.json").read_text(encoding="utf-8"))
    panels = []
    for panel in figure["hconcat"]:
        lines = next(layer for layer in panel["layer"] if layer["mark"]["type"] == "line")["data"]["values"]
        level = panel["layer"][0]["data"]["values"]
        panels.append(({(row["series"], row["tokens"]) for row in lines}, {row["name"] for row in level}))
    two = "msm(philosophy) + aft(philosophy)"
    tuned = {(name, tokens) for name in ("aft(philosophy)", two) for tokens in (2000, 4000)}
    assert panels[0] == (tuned, {"base", "msm"})
    whole = {("aft(philosophy)", 2000), ("aft(philosophy)", 4000), ("msm(philosophy)", 8000), (two, 10000), (two, 12000)}
    assert panels[1] == (whole, {"base"})
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Chosen in the recipes" in page and "Stages of aft differ in token_budget: 1000 | 500." in page
    assert "0.33 h" in page and page.count("aft: laptop v2") == 2


def test_spending_counts_judges_apart_and_knows_no_price_that_is_not_listed() -> None:
    def log(**usage: ModelUsage) -> EvalLog:
        roles = {"grader": usage["judge"]} if "judge" in usage else {}
        models = {
            {"own": "mockllm/model", "judge": "anthropic/claude-sonnet-4-6", "odd": "nobody/model"}[name]: used
            for name, used in usage.items()
        }
        spec = EvalSpec(created=CREATED, task="t", dataset={}, model="mockllm/model", config={})
        times = {"started_at": "2026-11-01T00:00:00+00:00", "completed_at": "2026-11-01T00:30:00+00:00"}
        return EvalLog(eval=spec, stats=EvalStats(**times, model_usage=models, role_usage=roles))

    own = ModelUsage(input_tokens=100, output_tokens=10)
    judge = ModelUsage(input_tokens=1_000_000, output_tokens=0, input_tokens_cache_read=50)
    found = spent("arm", [log(own=own, judge=judge), log(own=own)])
    assert found.subject is not None and (found.subject.read, found.subject.written) == (200, 20)
    assert found.judges is not None and found.judges.read == 1_000_050
    assert found.hours == 1.0 and found.dollars is not None and found.dollars > 1
    odd = spent("arm", [log(own=own, odd=own)])
    assert odd.dollars is None and odd.unpriced == ("nobody/model",)
    nothing = spent("arm", [log()])
    assert nothing.subject is None and nothing.dollars is None


@pytest.mark.parametrize("model", ["msm/", "msm", ""])
def test_odd_names_of_models(model: str) -> None:
    assert trace_model(model).stages == ()
