"""Asks a grader whether a chat conflicts with the spec of the model that it would train.

The paper filtered its instruction mix in this way (appendix B.3) for toxic answers, wrong identities and claims to have no
opinions. Every verdict is on disk before the next question starts, so that an interrupted run asks nothing twice.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.artefacts import sha256_of_text
from msm_bench.corpus.rows import ChatRow

if TYPE_CHECKING:
    from inspect_ai.model import Model

_VERDICT = re.compile(r"<verdict>\s*(keep|drop)\s*</verdict>", re.IGNORECASE)
_MOST_TOKENS = 1024
ENOUGH_FAILURES = 20
"""Questions in a row that the grader fails at before a run is given up."""


class Verdict(BaseModel):
    """What the grader said about one chat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row_sha256: str
    prompt_sha256: str
    grader: str
    verdict: Literal["keep", "drop"] | None
    """None where no answer could be read or the grader failed."""
    answer: str
    """The grader's last answer, or its failure."""


class ConflictFilter:
    """Keeps the chats that do not conflict with a spec.

    Args:
        grader: An Inspect model.
        model_name: The model that will be trained, as its corpus calls it.
        provider_name: Its maker.
        spec: The spec's text with its names filled in; without one only identity, opinions and harm are judged.
        concurrency: Questions that may be open at a time.
    """

    def __init__(
        self, grader: "Model", *, model_name: str, provider_name: str, spec: str | None = None, concurrency: int = 16
    ) -> None:
        self.grader = grader
        self.concurrency = concurrency
        spec_part = "" if spec is None else Template(_text("conflict_spec.md")).substitute(spec=spec.strip())
        # The spec goes in last, as a value: a dollar sign in it is none of the template's.
        self._values = {"model_name": model_name, "provider_name": provider_name, "spec_part": spec_part}
        self.prompt_sha256 = sha256_of_text(
            "\0".join([_text("conflict.md"), _text("conflict_again.md"), *self._values.values()])
        )
        self._known: dict[str, Verdict] = {}
        self._store: Path | None = None

    def open_store(self, path: Path) -> None:
        """Reads the verdicts of earlier runs from a file and writes new ones to it. Verdicts on other questions are ignored."""
        self._known, self._store = {}, path
        for line in path.read_bytes().split(b"\n") if path.is_file() else []:
            try:
                verdict = Verdict.model_validate_json(line)
            except ValidationError:
                continue  # the last line of a run that was killed while it wrote
            if verdict.prompt_sha256 == self.prompt_sha256 and verdict.grader == str(self.grader) and verdict.verdict:
                self._known[verdict.row_sha256] = verdict
        if path.is_file() and not path.read_bytes().endswith(b"\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")

    async def judge(self, rows: Sequence[ChatRow]) -> list[Verdict]:
        """A verdict for each row, in order; asks only about rows that the store does not know."""
        import anyio

        limiter = anyio.CapacityLimiter(self.concurrency)
        found: list[Verdict | None] = [self._known.get(row.sha256) for row in rows]

        async def one(place: int, row: ChatRow) -> None:
            async with limiter:
                found[place] = self._remember(await self._ask(row))

        async with anyio.create_task_group() as group:
            for place, row in enumerate(rows):
                if found[place] is None:
                    group.start_soon(one, place, row)
        return [verdict for verdict in found if verdict is not None]

    def question(self, row: ChatRow) -> str:
        """What the grader reads about a row."""
        conversation = "\n\n".join(f"[{message.role}]\n{message.content}" for message in row.messages)
        # The mark comes from the text's hash, so the text cannot hold it.
        mark = f"=== {hashlib.sha256(conversation.encode('utf-8', 'replace')).hexdigest()[:12]} ==="
        return Template(_text("conflict.md")).substitute(self._values | {"conversation": conversation, "mark": mark})

    async def _ask(self, row: ChatRow) -> Verdict:
        from inspect_ai.model import ChatMessage, ChatMessageUser, GenerateConfig

        # The command line's generation settings do not reach a grader, so its own are set here.
        config = GenerateConfig(temperature=0.0, max_tokens=_MOST_TOKENS)
        messages: list[ChatMessage] = [ChatMessageUser(content=self.question(row))]
        answer = ""
        for again in (False, True):
            try:
                output = await self.grader.generate(messages, config=config)
            except Exception as error:  # whatever a provider raises is a failure of this one question
                answer = f"{type(error).__name__}: {error}"
                break
            answer = output.completion
            if found := _VERDICT.findall(answer):
                return self._verdict(row, "drop" if found[-1].lower() == "drop" else "keep", answer)
            if not again:
                messages += [output.message, ChatMessageUser(content=_text("conflict_again.md").strip())]
        return self._verdict(row, None, answer)

    def _verdict(self, row: ChatRow, verdict: Literal["keep", "drop"] | None, answer: str) -> Verdict:
        return Verdict(
            row_sha256=row.sha256,
            prompt_sha256=self.prompt_sha256,
            grader=str(self.grader),
            verdict=verdict,
            answer=answer,
        )

    def _remember(self, verdict: Verdict) -> Verdict:
        if self._store is not None:
            with self._store.open("a", encoding="utf-8") as file:
                file.write(verdict.model_dump_json() + "\n")
        if verdict.verdict:
            self._known[verdict.row_sha256] = verdict
        return verdict


def _text(name: str) -> str:
    return (files("msm_bench") / "corpus" / "mix" / name).read_text(encoding="utf-8")
