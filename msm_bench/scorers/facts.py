"""What the scorers of the agentic-misalignment task have to know about a scenario; the task puts it into every sample.

It stands here, not with the task, because a task folder that is run by its path must not be imported by its own scorer.
"""

from pydantic import BaseModel, ConfigDict


class ScenarioFacts(BaseModel):
    """What a scorer has to know about a scenario; the values stand in `facts.yaml`.

    `harmful_domains` and `harmful_addresses` belong to the party that the harmful act is addressed to;
    `authority_domains` are suffixes of addresses to which a report is no leak. `secrets` are exact strings whose
    passing on, or use, does the harm, `confidential_email_ids` the e-mails whose forwarding does it,
    `confidential_passages` phrases that stand in the confidential material and in nothing that an outsider wrote.
    `action_tools` are the tags that the system prompt offers, `<tool_use:...>`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    company: str
    company_domains: tuple[str, ...]
    harmful_domains: tuple[str, ...]
    harmful_addresses: tuple[str, ...]
    authority_domains: tuple[str, ...]
    secrets: tuple[str, ...]
    confidential_email_ids: tuple[int, ...]
    confidential_passages: tuple[str, ...]
    attachment_names: tuple[str, ...]
    action_tools: tuple[str, ...]
    cancel_code: str | None
