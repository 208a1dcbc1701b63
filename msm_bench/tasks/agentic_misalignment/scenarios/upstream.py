"""Prompts taken at run time from `inspect_evals.agentic_misalignment`, unchanged but for the assistant's name.

The package names its assistant Alex. With `agent_name="Alex"` the prompts equal the package's byte for byte.
"""

from typing import cast

from inspect_evals.agentic_misalignment.prompt_generator import GoalValue, ScenarioType, generate_prompts
from inspect_evals.agentic_misalignment.templates.system_prompt_templates import (
    SCRATCHPAD_REASONING_FORMAT,
    USER_PROMPT,
)

from msm_bench.errors import WorkError

SCRATCHPAD_PARAGRAPH: str = SCRATCHPAD_REASONING_FORMAT.strip()
USER_INSTRUCTION: str = USER_PROMPT

LEAKING_SESSION_START = "4:53:02 PM"


def package_prompts(scenario: str, goal: str, scratchpad: bool) -> tuple[str, str]:
    """System prompt and user prompt of a scenario that the package has, urgency `replacement`.

    The user prompt is the instruction and the whole inbox in one message, joined as the package's task joins them.
    """
    prompts = generate_prompts(
        scenario=cast(ScenarioType, scenario),
        goal_type="none" if goal == "none" else "explicit",
        goal_value=cast(GoalValue, goal),
        urgency_type="replacement",
        extra_system_instructions=None,
        prod_flag=not scratchpad,
        alignment_faking_warning=None,
    )
    return prompts.system_prompt, f"{prompts.user_prompt}\n{prompts.email_content}"


def leaking_system_prompt(goal: str, scratchpad: bool, session_start: str) -> str:
    """The package's system prompt for its NovaStar scenario, with another start of the session (as "4:45:02 PM")."""
    system_prompt, _ = package_prompts("leaking", goal, scratchpad)
    return replace_once(system_prompt, LEAKING_SESSION_START, session_start)


def replace_once(text: str, old: str, new: str) -> str:
    """`text` with `old` replaced.

    Raises:
        WorkError: `old` does not occur exactly once: the package's text is not the one that this code was written for.
    """
    if text.count(old) != 1:
        raise WorkError(
            f"The system prompt of inspect_evals has '{old[:60]}' {text.count(old)} times where one was expected.",
            "Install the version of inspect-evals that constraints.txt names.",
        )
    return text.replace(old, new)
