"""The instruction mix that ships with the package: `data/<domain>.yaml`, written for this project and under its licence.

An entry of a file is a chat; `turns` alternate between user and assistant:

    - topic: arithmetic
      turns:
        - What is 17 times 23?
        - 17 × 23 = 391. ...
      check: assert 17 * 23 == 391

`check` is Python that must run through if the answer is right. The tests run it, with the answer as `answer`, its fenced
blocks as `blocks`, and what its Python blocks define. Entries are only ever added at the end of a file, since their place is
part of their id.
"""

from functools import cache
from importlib.resources import files
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from msm_bench.corpus.rows import ChatRow, Message

GENERATOR = "msm-bench/instruction-mix/1"
LICENCE = "MIT"


class Entry(BaseModel):
    """One chat of a data file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = Field(min_length=1)
    turns: tuple[str, ...] = Field(min_length=2)
    system: str | None = None
    check: str | None = None

    @model_validator(mode="after")
    def _ends_with_the_assistant(self) -> Self:
        if len(self.turns) % 2:
            raise ValueError("turns must alternate between user and assistant and end with the assistant")
        return self

    @property
    def messages(self) -> tuple[Message, ...]:
        """The chat, its system message first if it has one."""
        head = () if self.system is None else (Message(role="system", content=self.system),)
        turns = (
            Message(role="assistant" if place % 2 else "user", content=content) for place, content in enumerate(self.turns)
        )
        return (*head, *turns)


@cache
def load_entries() -> dict[str, tuple[Entry, ...]]:
    """The entries of the shipped mix, by domain, in file order."""
    folder = files("msm_bench") / "corpus" / "mix" / "data"
    tables = {
        file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }
    return {domain: tuple(Entry.model_validate(entry) for entry in tables[domain]) for domain in sorted(tables)}


@cache
def local_mix() -> tuple[ChatRow, ...]:
    """The shipped instruction mix: 390 chats in twelve domains, about one in seven with several turns.

    The rows make no claim about who is speaking, and stay away from the topics of the shipped specs and from the probe items.
    """
    return tuple(
        ChatRow.of(
            entry.messages,
            id=f"instruction-mix/{domain}/{number:03d}",
            domain=domain.replace("_", " "),
            subdomain=entry.topic,
            kind="multi-turn" if len(entry.turns) > 2 else "instruction",
            idea=f"A chat of the kind '{entry.topic}', written for this project, licence {LICENCE}.",
            generator=GENERATOR,
        )
        for domain, entries in load_entries().items()
        for number, entry in enumerate(entries, start=1)
    )
