"""Judgements that were paid for, on disk as they come: a scorer that remembers, and the file that it remembers in.

A judgement is a line of a JSON-lines file, written before the next one is asked for. A run that was killed goes on from there.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inspect_ai._util.registry import registry_info, registry_params, set_registry_info, set_registry_params
from inspect_ai.event import ModelEvent
from inspect_ai.log import transcript
from inspect_ai.model import ModelUsage
from inspect_ai.scorer import Score, Scorer, Target
from inspect_ai.solver import TaskState

ASK_AGAIN = frozenset({"not_judged"})
"""Outcomes that say nothing about the transcript: the judge could not be reached."""


@dataclass
class Ledger:
    """The judgements of one log by one judge. `asked` counts those that were bought since the file was opened."""

    path: Path
    scores: dict[str, Score] = field(default_factory=dict)
    used: ModelUsage = field(default_factory=ModelUsage)
    asked: int = 0

    @classmethod
    def open(cls, path: Path) -> "Ledger":
        """Reads what is there; a last line that was cut off by a crash is left out."""
        ledger = cls(path)
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                ledger.scores[entry["key"]] = Score.model_validate(entry["score"])
                ledger.used = ledger.used + ModelUsage.model_validate(entry["usage"])
        return ledger

    def add(self, key: str, score: Score, usage: ModelUsage) -> None:
        """Keeps a judgement; one that could not be had is counted and not kept, so that it is asked for again."""
        self.asked += 1
        self.used = self.used + usage
        if (score.metadata or {}).get("outcome") in ASK_AGAIN:
            return
        self.scores[key] = score
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = {"key": key, "score": score.model_dump(), "usage": usage.model_dump(exclude_none=True)}
        whole = self.path.is_file() and not self.path.read_bytes().endswith(b"\n") if self.asked == 1 else False
        with self.path.open("a", encoding="utf-8") as file:
            # A line that a crash cut off must not swallow the next one.
            file.write(("\n" if whole else "") + json.dumps(entry, default=str) + "\n")


def remembering(inner: Scorer, ledger: Ledger) -> Scorer:
    """The same scorer (name, arguments and metrics too), which looks into the ledger before it asks."""

    async def score(state: TaskState, target: Target) -> Score | None:
        said = hashlib.sha256(state.output.completion.encode("utf-8", "replace")).hexdigest()[:16]
        key = f"{state.sample_id}/{state.epoch}/{said}"
        if (known := ledger.scores.get(key)) is not None:
            return known
        before = len(transcript().events)
        found = await inner(state, target)
        if found is not None:
            ledger.add(key, found, _usage(transcript().events[before:]))
        return found

    set_registry_info(score, registry_info(inner))
    set_registry_params(score, registry_params(inner))
    return score


def _usage(events: Any) -> ModelUsage:
    total = ModelUsage()
    for event in events:
        if isinstance(event, ModelEvent) and event.output.usage is not None:
            total = total + event.output.usage
    return total
