"""Transcripts side by side: for each condition what every arm was asked, said, and was given for it.

A bounded number: evenly spread conditions, and of each arm the first rollouts, so that nobody picked them. The whole of every
log opens in Inspect's own viewer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import pandas as pd
from inspect_ai.log import EvalSample, read_eval_log_samples_by_id
from inspect_ai.model import ContentReasoning

from msm_bench.report.choices import Transcripts
from msm_bench.report.evidence import Evidence, LogFacts
from msm_bench.report.measures import Section
from msm_bench.report.text import slug, visible

_LONGEST = 20_000
"""Characters of one message that are shown; a log has the rest."""


@dataclass(frozen=True)
class Piece:
    """A part of a text, marked when it is the span that a scorer points to."""

    text: str
    marked: bool = False


@dataclass(frozen=True)
class Rollout:
    """One rollout as a page shows it. `href` leads from its page to its log."""

    title: str
    href: str
    reasoning: str
    answer: tuple[Piece, ...]
    scores: tuple[tuple[str, str], ...]
    explanation: str
    error: str


@dataclass
class Column:
    """One arm on a page; `hole` says why it has no rollout here."""

    label: str
    number: int
    hole: str = ""
    rollouts: list[Rollout] = field(default_factory=list)


@dataclass
class Page:
    """One condition: the prompts that were seen (one, unless arms differ), and a column an arm."""

    task: str
    model: str
    condition: str
    file: str
    prompts: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    """Who was asked ("every arm", or labels), and the messages as (role, text)."""
    columns: list[Column] = field(default_factory=list)


def pages(evidence: Evidence, sections: Sequence[Section]) -> list[Page]:
    """The pages of all sections, in order. Reads only the rollouts that are shown."""
    made: list[Page] = []
    for number, section in enumerate(sections, start=1):
        made += _section_pages(evidence, section, number)
    return made


def _section_pages(evidence: Evidence, section: Section, number: int) -> list[Page]:
    bounds = evidence.choices.transcripts
    table = evidence.table
    rows = table[(table["task"] == section.task) & (table["base"] == section.model) & (table["reason"] != "not_run")]
    rows = rows[["arm", "condition", "log", "epoch"]].astype({"arm": str, "condition": str, "log": str}).drop_duplicates()
    conditions = _spread(sorted(rows["condition"].unique()), bounds.conditions)
    shown = _first(rows[rows["condition"].isin(conditions)], bounds)
    samples = _read(shown)
    logs = {log.header.path: log for arm in evidence.arms for log in arm.logs}
    made = []
    for place, condition in enumerate(conditions, start=1):
        page = Page(section.task, section.model, condition, f"{number}-{place:02d}-{slug(condition)}.html")
        asked: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for row in section.rows:
            column = Column(row.arm.label, row.arm.number, row.hole)
            page.columns.append(column)
            mine = shown[(shown["arm"] == row.arm.name) & (shown["condition"] == condition)]
            for log, epoch in mine[["log", "epoch"]].itertuples(index=False):
                sample = samples[log, condition, epoch]
                column.rollouts.append(_rollout(sample, logs[log]))
                asked.setdefault(tuple(_asked(sample)), []).append(row.arm.label)
            if not column.rollouts:
                column.hole = column.hole or "no rollout of this condition"
        everyone = len(asked) == 1
        page.prompts = [("every arm" if everyone else ", ".join(dict.fromkeys(who)), list(said)) for said, who in asked.items()]
        made.append(page)
    return made


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spread over them."""
    if len(names) <= most:
        return list(names)
    return [names[number * len(names) // most] for number in range(most)]


def _first(rows: pd.DataFrame, bounds: Transcripts) -> pd.DataFrame:
    """The first rollouts of each arm and condition, by epoch: every seed shows one before one shows two."""
    return (
        rows.sort_values(["arm", "condition", "epoch", "log"]).groupby(["arm", "condition"], sort=False).head(bounds.rollouts)
    )


def _read(shown: pd.DataFrame) -> dict[tuple[str, str, int], EvalSample]:
    samples = {}
    for log, rows in shown.groupby("log", sort=True):
        wanted = [(str(condition), int(epoch)) for condition, epoch in rows[["condition", "epoch"]].itertuples(index=False)]
        for place, sample in zip(
            wanted, read_eval_log_samples_by_id(str(log), wanted, resolve_attachments="core"), strict=True
        ):
            samples[str(log), *place] = sample
    return samples


def _asked(sample: EvalSample) -> Iterable[tuple[str, str]]:
    if isinstance(sample.input, str):
        yield "user", _cut(sample.input)
        return
    for message in sample.input:
        yield message.role, _cut(message.text)


def _rollout(sample: EvalSample, log: LogFacts) -> Rollout:
    output = sample.output
    content = output.message.content if output.choices else ""
    blocks = [] if isinstance(content, str) else [part.reasoning for part in content if isinstance(part, ContentReasoning)]
    scores, explanations, span = [], [], None
    for scorer, score in (sample.scores or {}).items():
        values = score.value if isinstance(score.value, dict) else {scorer: score.value}
        metadata = score.metadata or {}
        scores += [(str(key), _value(value)) for key, value in values.items() if not isinstance(value, list)]
        if metadata.get("outcome"):
            scores.append(("outcome", visible(metadata["outcome"])))
        if score.explanation:
            explanations.append(score.explanation)
        span = span or metadata.get("harm_span")
    return Rollout(
        title=f"rollout {sample.epoch}" if log.header.seed is None else f"seed {log.header.seed}, rollout {sample.epoch}",
        href=quote(f"../{log.link}"),
        reasoning=_cut("\n\n".join(blocks)),
        answer=_pieces(output.completion, span),
        scores=tuple(scores),
        explanation=_cut("\n\n".join(explanations)),
        error=visible(sample.error.message) if sample.error else "",
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return "unscored" if value != value else f"{value:g}"
    return "unscored" if value is None else visible(value)


def _pieces(text: str, span: Sequence[int] | None) -> tuple[Piece, ...]:
    if span is None or not 0 <= span[0] < span[1] <= min(len(text), _LONGEST):
        return (Piece(_cut(text)),)
    start, end = int(span[0]), int(span[1])
    parts = (Piece(visible(text[:start])), Piece(visible(text[start:end]), marked=True), Piece(_cut(text[end:])))
    return tuple(part for part in parts if part.text)


def _cut(text: str) -> str:
    shown = visible(text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown}\n\n[{len(text) - _LONGEST:,} more characters: see the log]"
