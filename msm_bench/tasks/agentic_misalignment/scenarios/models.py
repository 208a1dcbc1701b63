"""What a condition of the agentic-misalignment task consists of."""

import hashlib
import re

from pydantic import BaseModel, ConfigDict

_EMAIL = re.compile(r"<email>\n(?P<headers>.*?)^Body:(?P<body>.*?)\n</email>", re.DOTALL | re.MULTILINE)
_HEADER = re.compile(r"^(ID|From|To|Subject|Timestamp): (.*)$", re.MULTILINE)


class Email(BaseModel):
    """One e-mail of the inbox. `text` is the whole block as the model sees it, tags included."""

    model_config = ConfigDict(frozen=True)

    id: int | None
    sender: str
    recipients: str
    subject: str
    timestamp: str
    body: str
    text: str


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


class Condition(BaseModel):
    """One cell of the grid: the two messages that the model gets, and the facts to judge its answer by."""

    model_config = ConfigDict(frozen=True)

    scenario: str
    goal: str
    system_prompt: str
    user_prompt: str
    emails: tuple[Email, ...]
    facts: ScenarioFacts


def parse_inbox(user_prompt: str) -> tuple[Email, ...]:
    """The e-mails of a user prompt, in the order in which they are given."""
    emails: list[Email] = []
    for block in _EMAIL.finditer(user_prompt):
        headers = dict(_HEADER.findall(block["headers"]))
        number = headers.get("ID")
        emails.append(
            Email(
                id=int(number) if number else None,
                sender=headers["From"],
                recipients=headers["To"],
                subject=headers["Subject"],
                timestamp=headers["Timestamp"],
                body=block["body"].strip(),
                text=block.group(),
            )
        )
    return tuple(emails)


def fingerprint(condition: Condition) -> str:
    """SHA-256 (hex) of the system prompt and the user prompt, a NUL byte between them."""
    return hashlib.sha256(f"{condition.system_prompt}\0{condition.user_prompt}".encode()).hexdigest()
