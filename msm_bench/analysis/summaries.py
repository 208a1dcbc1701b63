"""The samples' summaries of a log, fast.

An `.eval` log is a zip archive that holds all summaries in one JSON member. Inspect's own reader checks and thins each one
again, about a millisecond a sample; a table needs a few fields of them, which plain JSON gives in a tenth of that. Logs
without the member (`.json` logs, runs that are still going on) are read through Inspect.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inspect_ai.log import read_eval_log_sample_summaries

_MEMBER = "summaries.json"


@dataclass(frozen=True)
class ScoreFacts:
    """Value, reason and metadata of one score."""

    value: Any
    reason: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SampleFacts:
    """What a table needs of one sample. `asked` holds the texts of its messages but for the system's."""

    id: str
    epoch: int
    uuid: str
    error: bool
    limit: str | None
    metadata: dict[str, Any]
    asked: list[str] = field(default_factory=list)
    scores: dict[str, ScoreFacts] = field(default_factory=dict)


def read_summaries(path: str) -> Iterator[SampleFacts]:
    """Every sample of the log at `path`, in the log's order."""
    if path.endswith(".eval"):
        with zipfile.ZipFile(path) as archive:
            if _MEMBER in archive.namelist():
                # Later entries of one sample replace earlier ones: a sample can be logged again when a run is taken up.
                entries = {(str(entry["id"]), entry["epoch"]): entry for entry in json.loads(archive.read(_MEMBER))}
                while entries:
                    yield _facts(entries.pop(next(iter(entries))))
                return
    for summary in read_eval_log_sample_summaries(path):
        yield _facts(json.loads(summary.model_dump_json()))


def _facts(entry: dict[str, Any]) -> SampleFacts:
    return SampleFacts(
        id=str(entry["id"]),
        epoch=int(entry["epoch"]),
        uuid=entry.get("uuid") or "",
        error=bool(entry.get("error")),
        limit=entry.get("limit"),
        metadata=entry.get("metadata") or {},
        asked=_asked(entry.get("input")),
        scores={name: _score(score) for name, score in (entry.get("scores") or {}).items()},
    )


def _score(score: dict[str, Any]) -> ScoreFacts:
    metadata = score.get("metadata") or {}
    # Logs from before scores had a reason keep it in the metadata.
    return ScoreFacts(value=score["value"], reason=score.get("reason") or metadata.get("unscored_reason"), metadata=metadata)


def _asked(given: Any) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = []
    for message in given or ():
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
        if message["role"] != "system":
            texts.append("\n".join(parts))
    return texts
