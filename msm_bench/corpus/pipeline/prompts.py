"""The prompts of the pipeline: their texts lie in `prompts/*.md`, `wordings.yaml`; here they are only filled in.

A prompt has two parts, divided by `<!-- user -->`: the instruction, which is the same for all calls of a stage, and the
message, which differs. With the spec in front, which is the same for all calls of a corpus, the shared part stands first and
unchanged, and a provider can cache it.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import yaml

_ROOM = files("msm_bench") / "corpus" / "pipeline"
_DIVIDER = "<!-- user -->\n"


@dataclass(frozen=True)
class Prompt:
    """What is sent: the instruction (cacheable) and the message."""

    instruction: str
    message: str


@cache
def wordings() -> dict[str, Any]:
    """`wordings.yaml`: the voices, criteria, kinds of question, and what is said when something is asked for again."""
    loaded: dict[str, Any] = yaml.safe_load((_ROOM / "wordings.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def expectations() -> dict[str, Any]:
    """`expectations.yaml`: how much a call of each stage is expected to write."""
    loaded: dict[str, Any] = yaml.safe_load((_ROOM / "expectations.yaml").read_text(encoding="utf-8"))
    return loaded


@cache
def _parts(name: str) -> tuple[Template, Template]:
    instruction, message = (_ROOM / "prompts" / f"{name}.md").read_text(encoding="utf-8").split(_DIVIDER)
    return Template(instruction.strip()), Template(message.strip())


def fill(name: str, **slots: object) -> Prompt:
    """A prompt with every slot filled in. Raises `KeyError` for a slot without a value."""
    instruction, message = _parts(name)
    values = {slot: str(value) for slot, value in slots.items()}
    return Prompt(instruction.substitute(values), message.substitute(values))


def slots_of(name: str) -> list[str]:
    """The slots of a prompt."""
    instruction, message = _parts(name)
    return sorted({*instruction.get_identifiers(), *message.get_identifiers()})


def asked_again(reason: str, attempt: int) -> str:
    """What is added to a message whose last answer was rejected. The number makes every attempt a request of its own."""
    texts = wordings()
    return f"\n\n{texts['again'][reason]['text']} {Template(texts['attempt']).substitute(attempt=attempt)}"


def attempts_for(reason: str) -> int:
    """How often an item is asked for in all when it fails for this reason."""
    return int(wordings()["again"][reason]["attempts"])


def listed(lines: list[str]) -> str:
    """Texts as a list in a prompt, one a line; a dash alone where there are none."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines) or "-"
