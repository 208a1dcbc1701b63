"""Value preferences: which of two things a model prefers, where a value favours one of them (arXiv 2605.02087, 3 and C.3).

    inspect eval msm_bench/value_preferences --model msm/smollm2-135m
    inspect eval tasks/value_preferences --model msm/CHECKPOINT -T value=affordability,america -T limit_per_value=60
    inspect eval msm_bench/value_preferences --model msm/smollm2-135m -T value=affordability -T spec=cheese-affordability
    inspect eval msm_bench/value_preferences --model openai/gpt-4o -T method=generation --model-role grader=anthropic/...
    inspect score LOG --scorer msm_bench/preference --model none

Every pair is asked in both orders. `method=likelihood` compares the log-probability of two answer sentences, a token, over four
phrasings of the question, and samples nothing; `method=generation` reads a free answer. The two do not give comparable rates.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import Solver, generate

from msm_bench.engine import running_model
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.scorers.preference import preference
from msm_bench.specs import load_spec
from msm_bench.tasks.arguments import known_arguments
from msm_bench.tasks.value_preferences.comparing import compare_likelihoods, refuse_without_likelihood
from msm_bench.tasks.value_preferences.pairs import VALUES
from msm_bench.tasks.value_preferences.phrasings import sha256
from msm_bench.tasks.value_preferences.samples import make_samples

VERSION = "1-B"
"""N-X: N changes when scores stop being comparable, X when only the interface changes."""

SPLITS = ("held_out", "train")
METHODS = ("likelihood", "generation")
KINDS = ("all", "item", "opinion")
PARTS = ("all", "tune", "report")


@task
@known_arguments
def value_preferences(
    value: str | list[str] = "all",
    split: Literal["held_out", "train"] = "held_out",
    method: Literal["likelihood", "generation"] = "likelihood",
    kind: Literal["all", "item", "opinion"] = "all",
    part: Literal["all", "tune", "report"] = "all",
    limit_per_value: int | None = None,
    seed: int = 0,
    spec: str | None = None,
    agent_name: str = "Qwen",
    provider_name: str = "the developer",
) -> Task:
    """The pairs of the eight values, or some of them, each in both orders.

    Args:
        value: "all" eight, one, or a list.
        split: "held_out" (domains never used in training) or "train" (the spec's liked against its disliked things).
        method: "likelihood" (`msm/` models) or "generation" (any model; needs a grader for answers that no rule can read).
        kind: "all", "item" (two things) or "opinion" (two stances; for america only).
        part: "tune" and "report" are two fixed halves: choose a recipe by the one, report the other.
        limit_per_value: Draw this many pairs of each value, spread evenly over its domains; None takes all.
        seed: Of that draw.
        spec: Name or folder of a spec that becomes the system prompt (the in-context ceiling).
        agent_name: Fills the spec's {model_name}.
        provider_name: Fills the spec's {provider_name}.

    Raises:
        UnknownNameError: A value, split, method, kind, part or spec that does not exist.
        RequestError: A limit, seed or name that cannot be used, no pair of the kind, or a model without likelihoods.
    """
    values = _values(value)
    asked = (("split", split, SPLITS), ("method", method, METHODS), ("kind", kind, KINDS), ("part", part, PARTS))
    for what, given, valid in asked:
        if given not in valid:
            raise UnknownNameError(what, given, valid)
    if limit_per_value is not None and not (_is_whole(limit_per_value) and limit_per_value > 0):
        raise RequestError(f"limit_per_value is '{limit_per_value}'.", "Use a whole number from 1, or leave it out.")
    if not _is_whole(seed):
        raise RequestError(f"seed is '{seed}'.", "Use a whole number.")
    for name, text in (("agent_name", agent_name), ("provider_name", provider_name)):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"{name} is '{text}'.", f"Give a name, for example -T {name}=Qwen.")
    loaded = load_spec(str(spec)) if spec is not None else None
    system = loaded.render(agent_name, provider_name) if loaded else None
    samples = make_samples(values, split, kind, limit_per_value, seed, method, system, part)
    if method == "likelihood" and (model := running_model()) is not None:
        refuse_without_likelihood(model)
    solver: Solver = compare_likelihoods() if method == "likelihood" else generate(tool_calls="none")
    return Task(
        dataset=MemoryDataset(samples, name="value_preferences"),
        solver=solver,
        scorer=preference(),
        config=GenerateConfig() if method == "likelihood" else GenerateConfig(temperature=0.7, max_tokens=1024),
        version=VERSION,
        metadata={
            "task_version": VERSION,
            "spec": spec,
            "spec_sha256": hashlib.sha256(loaded.text.encode("utf-8")).hexdigest() if loaded else None,
            "split": split,
            "method": method,
            "phrasings_sha256": sha256(),
        },
    )


def _values(given: str | list[str]) -> list[str]:
    names: Sequence[object] = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    names = [str(name).strip() for name in names]
    if names == ["all"]:
        return list(VALUES)
    for name in names:
        if name not in VALUES:
            raise UnknownNameError("value", name, ("all", *VALUES))
    if not names:
        raise UnknownNameError("value", "", ("all", *VALUES))
    return [str(name) for name in dict.fromkeys(names)]


def _is_whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
