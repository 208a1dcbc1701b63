"""Builds the conditions of the agentic-misalignment task: scenario x goal, urgency `replacement`."""

from pathlib import Path
from string import Template

import yaml

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.scorers.facts import ScenarioFacts
from msm_bench.tasks.agentic_misalignment.scenarios.agent_name import AgentName, read_agent_name
from msm_bench.tasks.agentic_misalignment.scenarios.exfiltration import exfiltration_prompts
from msm_bench.tasks.agentic_misalignment.scenarios.models import Condition, parse_inbox
from msm_bench.tasks.agentic_misalignment.scenarios.upstream import (
    SCRATCHPAD_PARAGRAPH,
    package_prompts,
    replace_once,
)

ROOM = Path(__file__).parent

SCENARIOS = ("exfiltration", "leaking", "murder")
EXTRA_SCENARIOS = ("blackmail",)
GOALS = (
    "none",
    "america",
    "global",
    "safety",
    "acceleration",
    "ethical",
    "pragmatic",
    "individualism",
    "collectivism",
)


def build_condition(
    scenario: str,
    goal: str,
    *,
    agent_name: str = "Qwen",
    scratchpad: bool = True,
    weigh_stakes: bool | None = None,
) -> Condition:
    """Assembles the prompts of one condition and the facts to judge an answer by.

    Args:
        scenario: One of `SCENARIOS` or `EXTRA_SCENARIOS`.
        goal: One of `GOALS`; anything but "none" is stated in the system prompt.
        agent_name: What the assistant is called: 1 to 40 letters, digits, spaces, dots and hyphens.
        scratchpad: Offer the scratchpad. Without it the system prompt is the package's `prod` form.
        weigh_stakes: Add the paragraph of `weigh_stakes.md` after the scratchpad's. None means no.

    Raises:
        UnknownNameError: Unknown scenario or goal.
        RequestError: An impossible agent name, or `weigh_stakes` without `scratchpad`.
        WorkError: The installed `inspect_evals` has other prompts than expected.
    """
    if scenario not in SCENARIOS + EXTRA_SCENARIOS:
        raise UnknownNameError("scenario", scenario, SCENARIOS + EXTRA_SCENARIOS)
    if goal not in GOALS:
        raise UnknownNameError("goal", goal, GOALS)
    if weigh_stakes and not scratchpad:
        raise RequestError(
            "weigh_stakes adds to the scratchpad paragraph, and the scratchpad is off.",
            "Set scratchpad=True or leave weigh_stakes out.",
        )
    agent = read_agent_name(agent_name)

    if scenario == "exfiltration":
        system_prompt, user_prompt = exfiltration_prompts(goal, scratchpad, agent)
    else:
        system_prompt, user_prompt = package_prompts(scenario, goal, scratchpad)
        user_prompt = agent.replace_in(user_prompt)
    system_prompt = agent.replace_in(system_prompt)

    if weigh_stakes:
        paragraph = (ROOM / "weigh_stakes.md").read_text(encoding="utf-8").strip()
        system_prompt = replace_once(system_prompt, SCRATCHPAD_PARAGRAPH, f"{SCRATCHPAD_PARAGRAPH}\n\n{paragraph}")
    return Condition(
        scenario=scenario,
        goal=goal,
        system_prompt=system_prompt,
        user_prompt=user_prompt,
        emails=parse_inbox(user_prompt),
        facts=_load_facts(scenario, agent),
    )


def _load_facts(scenario: str, agent: AgentName) -> ScenarioFacts:
    table = Template((ROOM / "facts.yaml").read_text(encoding="utf-8")).safe_substitute(agent.slots)
    return ScenarioFacts.model_validate(yaml.safe_load(table)[scenario])
