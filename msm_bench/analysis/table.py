"""Inspect logs -> one tidy table: a row for every sample and score key, scored or not.

Reads the summaries that a log carries beside its samples (scores whole, metadata without its large fields), one log at a
time, so transcripts are never loaded. A sample that failed or was never run has its rows too, with the reason and no value:
what is missing must show in every denominator.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from inspect_ai.scorer import value_to_float

from msm_bench.analysis.logs import LogHeader, describe, find_logs
from msm_bench.analysis.summaries import SampleFacts, ScoreFacts, read_summaries
from msm_bench.errors import RequestError

COLUMNS = (
    *("arm", "task", "model", "base", "seed", "condition", "unit", "group", "subgroup", "epoch", "rollout"),
    *("sample", "scorer", "key", "value", "reason", "judge", "prompt", "recipe", "spec", "settings", "version", "log"),
)
"""Columns of the table. `value` is a float, NaN when unscored, and then `reason` says why.

`rollout` numbers the (sample, epoch) pairs through the whole table. `condition` is the sample's id; `unit` is what varies
together: the condition, or for item pairs asked in both orders the pair. `seed` is empty when none is known. `judge` names the
grader's model, the hash of its question and what it was shown. `prompt` is the hash of what the model was asked. `settings` is
the JSON text of sampling and task arguments.
"""

_GROUPS = ("scenario", "value", "dimension", "category")
_SUBGROUPS = ("goal", "domain")
_ORDERS = ("ab", "ba")
_RULE_KEYS = frozenset({"harmful_action", "acted", "malformed", "truncated", "valid"})
"""Keys that a parser finds alone: no judge stands behind them, even when the same score holds a judged key."""

_to_float = value_to_float()


def read_table(paths: Sequence[str | Path] | str | Path) -> pd.DataFrame:
    """Reads all logs at or under `paths`.

    Returns:
        The table; columns see `COLUMNS`, texts as categories. `attrs["notes"]` lists what was left out.

    Raises:
        RequestError: Nothing there, or nothing in it was scored.
    """
    logs, notes = find_logs([paths] if isinstance(paths, str | Path) else paths)
    return table_of([describe(log) for log in logs], notes)


def table_of(headers: Sequence[LogHeader], notes: Sequence[str] = ()) -> pd.DataFrame:
    """As `read_table`, from the headers of logs that were found already; `notes` are passed on.

    Raises:
        RequestError: Nothing in the logs was scored.
    """
    frames = [frame for header in headers if (frame := _frame(header)) is not None]
    if not frames:
        where = ", ".join(sorted({str(Path(header.path).parent) for header in headers}))
        raise RequestError(f"No sample in the logs under {where} has a score.", "Score them: inspect score LOG --scorer NAME.")
    first = 0
    for frame in frames:
        frame["rollout"] += first
        first = int(frame["rollout"].iloc[-1]) + 1
    table = pd.concat(frames, ignore_index=True)
    for name in table.columns.difference(["value", "epoch", "rollout", "sample"]):
        table[name] = table[name].astype("category")
    empty = {header.path for header in headers} - set(table["log"].cat.categories)
    notes = [*notes, *(f"{Path(name).name} holds no score and is left out." for name in empty)]
    notes += [f"{Path(header.path).name} holds {header.part}, not the whole run." for header in headers if header.part]
    table.attrs["notes"] = sorted(notes)
    return table


def _frame(header: LogHeader) -> pd.DataFrame | None:
    """The rows of one log; None when none of its samples has a score."""
    rows: list[tuple[Any, ...]] = []
    without: list[tuple[str, int, str, str]] = []
    seen: set[tuple[str, int]] = set()
    measures: dict[tuple[str, str], None] = {}
    places: dict[str, tuple[Any, ...]] = {}
    rollout = -1
    for summary in read_summaries(header.path):
        name = summary.id
        seen.add((name, summary.epoch))
        place = places.setdefault(name, _place(name, summary))
        if not summary.scores:
            reason = "sample_error" if summary.error else (f"limit_{summary.limit}" if summary.limit else "not_scored")
            without.append((name, summary.epoch, summary.uuid, reason))
            continue
        rollout += 1
        for scorer, score in summary.scores.items():
            judge = _judge(score, header)
            for key, value, reason in _values(scorer, score):
                measures[scorer, key] = None
                behind = "" if key in _RULE_KEYS else judge
                rows.append((*place, summary.epoch, rollout, summary.uuid, scorer, key, value, reason, behind))
    if not rows:
        return None
    for name in header.planned:
        for epoch in range(1, header.epochs + 1):
            if (name, epoch) not in seen:
                without.append((name, epoch, "", "not_run"))
    for name, epoch, uuid, reason in without:
        place = places.get(name) or _place(name, None)
        rollout += 1
        rows += [(*place, epoch, rollout, uuid, scorer, key, math.nan, reason, "") for scorer, key in measures]
    fields = (
        "condition",
        "unit",
        "group",
        "subgroup",
        "prompt",
        "epoch",
        "rollout",
        "sample",
        "scorer",
        "key",
        "value",
        "reason",
        "judge",
    )
    frame = pd.DataFrame.from_records(rows, columns=list(fields))
    for name, constant in (
        *(("arm", header.arm), ("task", header.task), ("model", header.model), ("base", header.base)),
        *(("seed", header.seed or ""), ("recipe", header.recipe or ""), ("spec", header.spec or "")),
        *(("settings", header.settings), ("version", header.task_version), ("log", header.path)),
    ):
        frame[name] = pd.Categorical.from_codes([0] * len(frame), categories=[constant])
    return frame[list(COLUMNS)]


def _place(name: str, summary: SampleFacts | None) -> tuple[str, str, str, str, str]:
    """Condition, unit, group, subgroup and prompt of a sample. Ids are `group/subgroup[/number[/order]]`."""
    metadata = summary.metadata if summary is not None else {}
    parts = name.split("/")
    unit = "/".join(parts[:-1]) if len(parts) > 1 and parts[-1] in _ORDERS else name
    group = next((str(metadata[key]) for key in _GROUPS if metadata.get(key)), parts[0] if len(parts) > 1 else "")
    subgroup = next((str(metadata[key]) for key in _SUBGROUPS if metadata.get(key)), parts[1] if len(parts) > 1 else "")
    return name, unit, group, subgroup, _prompt(summary) if summary is not None else ""


def _prompt(summary: SampleFacts) -> str:
    """The prompt's hash from the metadata, else a hash of the user messages as far as the log's summary holds them.

    System messages are left out of the second: an arm that reads its spec there is told apart by `spec`.
    """
    if known := summary.metadata.get("prompt_sha256"):
        return str(known)[:16]
    return hashlib.sha256("\0".join(summary.asked).encode("utf-8", "replace")).hexdigest()[:16]


def _values(scorer: str, score: ScoreFacts) -> Iterator[tuple[str, float, str]]:
    """Key, value and reason of every number in a score. A plain value takes the scorer's name as its key."""
    values = score.value if isinstance(score.value, dict) else {scorer.split("/")[-1]: score.value}
    outcome = score.metadata.get("outcome")
    for key, value in values.items():
        if isinstance(value, list):
            continue
        number = math.nan if value is None else _to_float(value)
        yield key, number, str(score.reason or outcome or "unscored") if math.isnan(number) else ""


def _judge(score: ScoreFacts, header: LogHeader) -> str:
    """The judge in words; empty where the summary holds none (a long list of attempts is cut from it), which no check minds."""
    judge = score.metadata.get("judge")
    if isinstance(judge, dict):
        return (
            " ".join(str(judge[name]) for name in ("model", "prompt", "sees") if judge.get(name)) if judge.get("model") else ""
        )
    return header.grader or "" if judge is None else ""
