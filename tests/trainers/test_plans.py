"""The plan of a run: right counts, nothing loaded, nothing written."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from msm_bench.trainers.plan import Plan, render


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*unused: object, **unused_too: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    monkeypatch.setattr("safetensors.torch.load_file", refuse)


def test_a_plan_counts_what_the_run_does(no_weights: None, quick: Callable[..., Any], tmp_path: Path) -> None:
    plan = quick("msm", tmp_path / "out", dry_run=True)
    assert isinstance(plan, Plan)
    assert list(tmp_path.iterdir()) == []
    assert plan.tokens == plan.data.tokens * 2 and plan.loss_tokens == plan.data.loss_tokens * 2
    assert plan.updates == 10 and plan.tokens_per_update == plan.tokens / 10
    assert 0 <= plan.padding < 0.2
    assert plan.seconds is not None and plan.seconds > 0
    assert "2 layers" in str(plan.probe)
    # rank 4 on q, k, v, o, gate, up and down of two layers of width 32 (k and v: 16) and 48
    assert plan.trainable == 2 * 4 * (64 + 48 + 48 + 64 + 80 + 80 + 80)
    assert plan.memory.adapter == 16 * plan.trainable
    assert plan.memory.weights == 4 * plan.parameters


def test_the_plan_is_what_then_happens(quick: Callable[..., Any], tmp_path: Path) -> None:
    plan = quick("aft", tmp_path / "out", dry_run=True, probe=False)
    assert plan.seconds is None and plan.probe is None
    found = quick("aft", tmp_path / "out")
    assert (found.updates, found.data) == (plan.updates, plan.data)
    lines = (tmp_path / "out" / "losses.jsonl").read_text().splitlines()
    import json

    rates = {line["update"]: line["learning_rate"] for line in map(json.loads, lines)}
    for update, rate in plan.learning_rate.items():
        assert math.isclose(rates[update], rate, rel_tol=1e-6, abs_tol=1e-12)


def test_padding_is_counted(quick: Callable[..., Any], tmp_path: Path) -> None:
    """Without packing, rows of unequal length are padded to the longest of their forward pass."""
    changes = {"packing": "false", "batch_rows": "4", "micro_batch_rows": "4"}
    loose = quick("aft", tmp_path / "out", dry_run=True, probe=False, overrides=changes)
    single = quick("aft", tmp_path / "out", dry_run=True, probe=False, overrides={"packing": "false", "batch_rows": "4"})
    assert loose.padding > 0.02 > single.padding == 0


def test_it_is_shown(quick: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = quick("msm", tmp_path / "out", dry_run=True, probe=False)
    Console(width=160).print(render(plan))
    shown = capsys.readouterr().out
    for text in ("10 of 121 tokens", "not measured", "weight", "Chosen, as no source fixes it", "fewer than 100"):
        assert text in shown
    assert "weight_decay" not in shown  # the paper fixes it
