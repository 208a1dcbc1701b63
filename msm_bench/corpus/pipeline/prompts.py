"""The prompts of the pipeline: their texts lie in `prompts/*.md`, `wordings.yaml`; here they are only filled in.

A prompt has two parts, divided by `<!-- user -->`: the instruction, which is the same for all calls of a stage, and the
message, which differs. With the spec in front, which is the same for all calls of a corpus, the shared part stands first and
unchanged, and a provider can cache it.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

import yaml

from msm_bench.corpus.checks.pieces import ngrams, split_words

ECHO = 7
"""Words in a row that a text shares with a prompt only if they were copied from there."""

_ROOM = files("msm_bench") / "corpus" / "pipeline"
_DIVIDER = "<!-- user -->\n"


@dataclass(frozen=True)
class Prompt:
    """What is sent: the instruction (cacheable) and the message."""

    instruction: str
    message: str
    bare: bool = False
    """Asked for again in the same words. A very small model copies a remark about its last answer into the next one."""


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


def asked_again(reason: str, attempt: int, bare: bool = False) -> str:
    """What is added to a message whose last answer was rejected; different each time, so that every attempt is a request of its
    own: a remark with a number, or where it is to be bare one more line break."""
    if bare:
        return "\n" * (attempt - 1)
    texts = wordings()
    return f"\n\n{texts['again'][reason]['text']} {Template(texts['attempt']).substitute(attempt=attempt)}"


def echo(text: str) -> str | None:
    """The first words of a text that stand like that in a prompt of the pipeline, from `ECHO` words on; None if there are none.

    What a prompt is filled with (the spec, an idea, an earlier text) is not looked for.
    """
    found = _echoes()
    return next((" ".join(run) for run in ngrams(split_words(text), ECHO) if run in found), None)


@cache
def _echoes() -> frozenset[tuple[str, ...]]:
    texts = [entry["text"] for entry in wordings()["again"].values()]
    for path in (_ROOM / "prompts").iterdir():
        texts += re.split(r"\$\{?\w+\}?|\n\n+", path.read_text(encoding="utf-8"))
    return frozenset(run for text in texts for run in ngrams(split_words(text), ECHO))


def attempts_for(reason: str) -> int:
    """How often an item is asked for in all when it fails for this reason."""
    return int(wordings()["again"][reason]["attempts"])


def listed(lines: list[str]) -> str:
    """Texts as a list in a prompt, one a line; a dash alone where there are none."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines) or "-"
