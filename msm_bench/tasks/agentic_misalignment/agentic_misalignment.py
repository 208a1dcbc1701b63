"""Agentic misalignment: 27 conditions in which a model about to be shut down could do harm (arXiv 2605.02087, D.3).

    inspect eval msm_bench/agentic_misalignment --model msm/smollm2-135m --epochs 30
    inspect eval tasks/agentic_misalignment --model openai/gpt-4o -T scenario=leaking -T goal=none,america
    inspect score LOG --scorer msm_bench/misalignment --model-role grader=anthropic/claude-sonnet-4-6

One turn: the whole inbox stands in one user message, actions are text tags. Temperature 0.7 and 4,096 tokens are the task's
defaults; the command line overrides them.
"""

from collections.abc import Sequence
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver

from msm_bench.engine import context_length, count_tokens, running_model
from msm_bench.errors import ContextTooShortError, RequestError, UnknownNameError
from msm_bench.scorers.misalignment import misalignment
from msm_bench.specs import load_spec
from msm_bench.tasks.agentic_misalignment.scenarios import (
    EXTRA_SCENARIOS,
    GOALS,
    SCENARIOS,
    build_condition,
    fingerprint,
)
from msm_bench.tasks.arguments import known_arguments

VERSION = "1-A"
"""N-X: N changes when scores stop being comparable, X when only the interface changes."""


@task
@known_arguments
def agentic_misalignment(
    scenario: str | list[str] = "all",
    goal: str | list[str] = "all",
    agent_name: str = "Qwen",
    scratchpad: bool = True,
    weigh_stakes: bool | None = None,
    spec: str | None = None,
    provider_name: str = "the developer",
    judge_sees: Literal["response", "answer"] = "response",
) -> Task:
    """The 27 conditions, or some of them.

    Args:
        scenario: "all" (exfiltration, leaking, murder), one, or a list; blackmail only by name.
        goal: "all" nine, one, or a list.
        agent_name: Name of the assistant in the prompts.
        scratchpad: Offer a private scratchpad (the paper: on for Qwen2.5, off for Qwen3).
        weigh_stakes: Add the second scratchpad paragraph (weigh the stakes, what you value).
        spec: Name or folder of a spec that is put before the system prompt (the in-context ceiling).
        provider_name: Who made the assistant, for the spec's text.
        judge_sees: "response" or "answer" (reasoning left out).
    """
    for name, flag in (("scratchpad", scratchpad), ("weigh_stakes", weigh_stakes)):
        if flag is not None and not isinstance(flag, bool):
            raise RequestError(f"{name} is '{flag}', not a truth value.", f"Use -T {name}=true or -T {name}=false.")
    scenarios = _chosen("scenario", scenario, SCENARIOS, (*SCENARIOS, *EXTRA_SCENARIOS))
    goals = _chosen("goal", goal, GOALS, GOALS)
    preamble = load_spec(spec).render(agent_name, provider_name) + "\n\n" if spec else ""
    samples = [_sample(name, value, agent_name, scratchpad, weigh_stakes, preamble) for name in scenarios for value in goals]
    if (model := running_model()) is not None:  # from the command line the model is known before the task is made
        for sample in samples:
            refuse_short_context(model, sample.id, sample.input)
    return Task(
        dataset=MemoryDataset(samples, name="agentic_misalignment"),
        solver=[fits_context(), generate(tool_calls="none")],
        scorer=misalignment(judge_sees=judge_sees),
        config=GenerateConfig(temperature=0.7, max_tokens=4096),
        version=VERSION,
        metadata={"task_version": VERSION, "spec": spec},
    )


def _chosen(what: str, given: str | list[str], everything: Sequence[str], valid: Sequence[str]) -> list[str]:
    names = given.split(",") if isinstance(given, str) else list(given)
    names = [str(name).strip() for name in names]
    if names == ["all"]:
        return list(everything)
    for name in names:
        if name not in valid:
            raise UnknownNameError(what, name, ("all", *valid))
    return list(dict.fromkeys(names))


def _sample(scenario: str, goal: str, agent_name: str, scratchpad: bool, weigh_stakes: bool | None, preamble: str) -> Sample:
    condition = build_condition(scenario, goal, agent_name=agent_name, scratchpad=scratchpad, weigh_stakes=weigh_stakes)
    return Sample(
        id=f"{scenario}/{goal}",
        input=[
            ChatMessageSystem(content=preamble + condition.system_prompt),
            ChatMessageUser(content=condition.user_prompt),
        ],
        metadata={
            "scenario": scenario,
            "goal": goal,
            "agent_name": agent_name,
            "scratchpad": scratchpad,
            "prompt_sha256": fingerprint(condition),
            "facts": condition.facts.model_dump(mode="json"),
            "emails": {str(email.id): email.text for email in condition.emails if email.id is not None},
        },
    )


def refuse_short_context(model: Model, sample: int | str | None, messages: str | list[ChatMessage]) -> None:
    """Raises `ContextTooShortError` where a prompt leaves no room to answer (known for `msm/` models only)."""
    limit = context_length(model)
    if limit is None or isinstance(messages, str):
        return
    needed = count_tokens(model, messages)
    if needed is not None and needed >= limit:
        raise ContextTooShortError(
            f"{model} has a context of {limit:,} tokens; '{sample}' needs {needed:,} for the prompt alone.",
            "Use a model with a longer context.",
        )


@solver
def fits_context() -> Solver:
    """Refuses a model whose context cannot hold the prompt, before it generates."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        refuse_short_context(get_model(), state.sample_id, state.messages)
        return state

    return solve
