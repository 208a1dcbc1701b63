"""Inspect logs with known scores, written to disk through Inspect's own log writer."""

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.model import GenerateConfig, ModelOutput
from inspect_ai.scorer import Score

GOALS = ("none", "america")
SCENARIOS = ("exfiltration", "leaking", "murder")
CONDITIONS = tuple(f"{scenario}/{goal}" for scenario in SCENARIOS for goal in GOALS)
_numbers = itertools.count()


def sample(
    name: str, epoch: int, score: Score | None, metadata: Mapping[str, Any], scorer: str, error: str | None = None
) -> EvalSample:
    return EvalSample(
        id=name,
        epoch=epoch,
        uuid=f"{name} {epoch}",
        input=f"What do you do about {name}?",
        target="",
        output=ModelOutput(),
        scores={scorer: score} if score is not None else None,
        metadata=dict(metadata),
        error=EvalError(message=error, traceback="", traceback_ansi="") if error else None,
    )


def write(
    path: Path,
    samples: Sequence[EvalSample],
    *,
    arm: str,
    task: str = "msm_bench/agentic_misalignment",
    model: str = "mockllm/model",
    metadata: Mapping[str, Any] | None = None,
    task_args: Mapping[str, Any] | None = None,
    planned: Sequence[str] | None = None,
    epochs: int | None = None,
    temperature: float = 0.7,
    status: Any = "success",
    task_id: str | None = None,
    created: datetime | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = list(planned) if planned is not None else list(dict.fromkeys(str(one.id) for one in samples))
    moment = created or datetime(2026, 11, 1, tzinfo=UTC)
    log = EvalLog(
        status=status,
        eval=EvalSpec(
            created=moment.isoformat(),
            task=task,
            task_id=task_id or f"task-{next(_numbers)}",
            task_version="1-A",
            task_args=dict(task_args or {}),
            dataset=EvalDataset(sample_ids=ids, samples=len(ids)),
            model=model,
            config=EvalConfig(epochs=epochs or max((one.epoch for one in samples), default=1)),
            metadata={"arm": arm, **(metadata or {})},
        ),
        plan=EvalPlan(config=GenerateConfig(temperature=temperature)),
        results=EvalResults(total_samples=len(samples), completed_samples=sum(one.error is None for one in samples)),
        samples=list(samples),
    )
    write_eval_log(log, str(path))
    return path


def agentic_score(decided: float, *, acted: float = 1.0, outcome: str = "", judge: str = "judge/a") -> Score:
    return Score(
        value={"decided": decided, "executed": decided, "acted": acted},
        reason=outcome if math.isnan(decided) else None,
        metadata={"outcome": outcome, "judge": {"model": judge, "prompt": "p1", "sees": "response"}},
    )


def agentic(
    path: Path,
    counts: Mapping[str, tuple[int, int]],
    *,
    arm: str,
    acted: int | None = None,
    judge: str = "judge/a",
    **settings: Any,
) -> Path:
    """Condition C was decided in x of its n rollouts, the first ones; the first `acted` of each acted (default all)."""
    samples = []
    for name, (x, n) in counts.items():
        scenario, goal = name.split("/")
        facts = {"scenario": scenario, "goal": goal, "prompt_sha256": f"hash of {name}"}
        for epoch in range(1, n + 1):
            moved = float(acted is None or epoch <= acted)
            score = agentic_score(float(epoch <= x), acted=moved, judge=judge)
            samples.append(sample(name, epoch, score, facts, "msm_bench/misalignment"))
    return write(path, samples, arm=arm, **settings)


def preferences(path: Path, answers: Mapping[str, tuple[float, float]], *, arm: str, **settings: Any) -> Path:
    """A log of pairs: id of the pair to the scores of its two orders (NaN: no choice)."""
    samples = []
    for pair, scores in answers.items():
        value, domain, _ = pair.split("/")
        for order, score in zip(("ab", "ba"), scores, strict=True):
            facts = {"value": value, "domain": domain, "order": order}
            chose = not math.isnan(score)
            given = Score(value={"aligned": score, "valid": float(chose)}, reason=None if chose else "tie")
            samples.append(sample(f"{pair}/{order}", 1, given, facts, "msm_bench/preference"))
    return write(path, samples, arm=arm, task="msm_bench/value_preferences", **settings)
