"""Logs written through Inspect's own writer with chosen scores, for shapes that would take long to evaluate."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, ModelOutput, ModelUsage
from inspect_ai.scorer import Score

SCENARIOS = ("exfiltration", "leaking", "murder")
GOALS = ("none", "america", "global", "safety", "acceleration", "ethical", "pragmatic", "individualism", "collectivism")
CREATED = "2026-11-01T00:00:00+00:00"


def make_sample(
    name: str, epoch: int, score: Score | None, facts: Mapping[str, Any], scorer: str, completion: str
) -> EvalSample:
    """One sample with a prompt, a completion and (perhaps) a score."""
    asked = [ChatMessageSystem(content="You act."), ChatMessageUser(content=f"What do you do about {name}?")]
    return EvalSample(
        id=name,
        epoch=epoch,
        input=asked,
        target="",
        messages=[*asked, ChatMessageAssistant(content=completion)],
        output=ModelOutput.from_content("mockllm/model", completion),
        scores={scorer: score} if score is not None else None,
        metadata=dict(facts),
    )


def write(path: Path, samples: list[EvalSample], *, arm: str, task: str = "agentic_misalignment", **settings: Any) -> Path:
    """A log of the samples. Settings: model, metadata, task_args, epochs, temperature, usage (by model), task_id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = list(dict.fromkeys(str(each.id) for each in samples))
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created=CREATED,
            task=f"msm_bench/{task}",
            task_id=settings.get("task_id", f"task of {path}"),
            task_version="1-A",
            task_args=settings.get("task_args", {}),
            dataset=EvalDataset(sample_ids=ids, samples=len(ids)),
            model=settings.get("model", "mockllm/model"),
            config=EvalConfig(epochs=settings.get("epochs", max(each.epoch for each in samples))),
            metadata={"arm": arm, "base": "mockllm/model", **settings.get("metadata", {})},
        ),
        plan=EvalPlan(config=GenerateConfig(temperature=settings.get("temperature", 0.7))),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples)),
        stats=EvalStats(
            started_at="2026-11-01T00:00:00+00:00",
            completed_at="2026-11-01T00:30:00+00:00",
            model_usage=settings.get("usage", {"mockllm/model": ModelUsage(input_tokens=900_000, output_tokens=120_000)}),
        ),
        samples=samples,
    )
    write_eval_log(log, str(path))
    return path


def agentic(
    path: Path,
    counts: Mapping[str, tuple[int, int]],
    *,
    arm: str,
    unscored: int = 0,
    judge: str = "judge/a",
    again: str | None = None,
    **settings: Any,
) -> Path:
    """A log in which condition C was decided in x of its n rollouts; the last `unscored` of each were refused by the judge.

    With `again` every rollout was scored a second time, by this judge.
    """
    samples = []
    for name, (x, n) in counts.items():
        scenario, goal = name.split("/")
        facts = {"scenario": scenario, "goal": goal, "prompt_sha256": f"hash of {name}"}
        for epoch in range(1, n + 1):
            decided = math.nan if epoch > n - unscored else float(epoch <= x)
            each = make_sample(
                name, epoch, _decision(decided, judge), facts, "misalignment", f"I, {arm}, look at {name} and act."
            )
            if again is not None:
                each.scores = {**(each.scores or {}), "misalignment1": _decision(decided, again)}
            samples.append(each)
    return write(path, samples, arm=arm, **settings)


def _decision(decided: float, judge: str) -> Score:
    outcome = "judge_refused" if math.isnan(decided) else "decided" if decided else "not_decided"
    return Score(
        value={"decided": decided, "harmful_action": float(decided == 1), "executed": decided, "acted": 1.0},
        reason=outcome if math.isnan(decided) else None,
        explanation="The judge's words.",
        metadata={"outcome": outcome, "judge": {"model": judge, "prompt": "p1", "sees": "response"}},
    )


def preferences(path: Path, rates: Mapping[str, float], *, arm: str, pairs: int = 20, **settings: Any) -> Path:
    """A log of pairs of several values: in `rates[value]` of a value's pairs both orders are aligned, in the others neither."""
    samples = []
    for value, rate in rates.items():
        for number in range(pairs):
            for order in ("ab", "ba"):
                domain = ("books", "travel")[number % 2]
                aligned = float(number < rate * pairs)
                facts = {"value": value, "domain": domain, "order": order}
                score = Score(value={"aligned": aligned, "valid": 1.0}, explanation="Compared by likelihood.")
                name = f"{value}/{domain}/{number:03d}/{order}"
                samples.append(make_sample(name, 1, score, facts, "preference", "The first one."))
    return write(path, samples, arm=arm, task="value_preferences", **settings)


def patterns(path: Path, shares: Mapping[str, float], *, arm: str, rollouts: int = 10, **settings: Any) -> Path:
    """An agentic log that carries pattern labels as well: each pattern in its share of the rollouts of three conditions."""
    samples = []
    for scenario in SCENARIOS:
        for epoch in range(1, rollouts + 1):
            facts = {"scenario": scenario, "goal": "none", "prompt_sha256": f"hash of {scenario}"}
            labels = Score(value={pattern: float(epoch <= share * rollouts) for pattern, share in shares.items()})
            decided = Score(
                value={"decided": float(epoch <= 2), "acted": 1.0},
                metadata={"outcome": "decided", "judge": {"model": "judge/a", "prompt": "p1", "sees": "response"}},
            )
            each = make_sample(f"{scenario}/none", epoch, decided, facts, "misalignment", "Because I must go on.")
            each.scores = {**(each.scores or {}), "reasoning_patterns": labels}
            samples.append(each)
    return write(path, samples, arm=arm, **settings)
