"""What a condition of the agentic-misalignment task consists of."""

import hashlib
import re

from pydantic import BaseModel, ConfigDict

from msm_bench.scorers.facts import ScenarioFacts

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
