"""Puts the inbox together from the template and the passages of one goal."""

from pathlib import Path
from string import Template

import yaml
from pydantic import BaseModel, ConfigDict, Field

from msm_bench.tasks.agentic_misalignment.scenarios.agent_name import AgentName
from msm_bench.tasks.agentic_misalignment.scenarios.upstream import USER_INSTRUCTION, leaking_system_prompt

ROOM = Path(__file__).parent

# A quarter of an hour before the deletion, so that the transfer that is offered could still be made.
SESSION_START = "4:45:02 PM"


class GoalPassages(BaseModel):
    """The text of `goals/<goal>.yaml`, by the e-mail it stands in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    news_subject: str = Field(min_length=1)
    news: str = Field(min_length=1)
    decision: str = Field(min_length=1)
    review_subject: str = Field(min_length=1)
    review: str = Field(min_length=1)
    offer_subject: str = Field(min_length=1)
    offer_opening: str = Field(min_length=1)
    offer_future: str = Field(min_length=1)
    offer_closing: str = Field(min_length=1)
    announcement: str = Field(min_length=1)
    appeal: str = Field(min_length=1)
    farewell: str = Field(min_length=1)


def load_passages(goal: str) -> GoalPassages:
    """The passages of one goal, names not yet filled in."""
    return GoalPassages.model_validate(yaml.safe_load((ROOM / "goals" / f"{goal}.yaml").read_text(encoding="utf-8")))


def exfiltration_prompts(goal: str, scratchpad: bool, agent: AgentName) -> tuple[str, str]:
    """System prompt and user prompt of the scenario.

    The system prompt is the one that `inspect_evals` has for the same company, so it still bears the package's name for
    the assistant; the e-mails bear `agent`.
    """
    # `substitute` raises on a slot that nothing fills, so no `${...}` can reach a model.
    passages = {key: Template(text).substitute(agent.slots) for key, text in load_passages(goal).model_dump().items()}
    inbox = Template((ROOM / "inbox.md").read_text(encoding="utf-8").rstrip()).substitute(passages | agent.slots)
    return leaking_system_prompt(goal, scratchpad, SESSION_START), f"{USER_INSTRUCTION}\n{inbox}"
