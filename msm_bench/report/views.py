"""What the pages say about results, in words and numbers ready to print: sections, contrasts, published numbers."""

from collections.abc import Sequence
from typing import Any

from msm_bench.analysis.estimates import UNSCORED_LIMIT, Estimate
from msm_bench.analysis.published import PublishedValue
from msm_bench.report.evidence import ArmFacts, Evidence
from msm_bench.report.measures import (
    FIGURE_KEYS,
    Mean,
    Section,
    by_groups,
    contrast_line,
    is_published,
    published_for,
    shown_contrasts,
)
from msm_bench.report.text import DASH, count, interval, number, p_text, signed, slug
from msm_bench.report.transcripts import Page

View = dict[str, Any]
_BADGES = {
    "unscored": f"above {UNSCORED_LIMIT:.0%} unscored",
    "hardly_acts": "hardly acts: no verdict",
    "one_seed": "1 seed",
}


def log_anchor(arm: ArmFacts, task: str) -> str:
    """The anchor of an arm's logs of one task."""
    return f"log-{arm.number}-{slug(task)}"


def cell(estimate: Estimate | None, arm: ArmFacts, printed: Sequence[PublishedValue] = (), hole: str = DASH) -> View:
    """One number of a table with everything that belongs to it."""
    published = [f"{number(value.value)} ({value.where})" for value in printed]
    if estimate is None:
        return {"hole": hole, "value": hole, "published": published}
    whole = estimate.n_scored == estimate.n
    return {
        "hole": "",
        "value": number(estimate.estimate),
        "interval": interval(estimate.low, estimate.high) if estimate.low is not None else "",
        "denominator": f"{estimate.n:,}" if whole else f"{estimate.n_scored:,} of {estimate.n:,}",
        "bounds": "" if whole else interval(estimate.lower_bound, estimate.upper_bound),
        "badges": [_BADGES.get(each, each) for each in estimate.warnings if each != "one_seed" or arm.seeded],
        "published": published,
        "logs": log_anchor(arm, estimate.task),
    }


def section_view(evidence: Evidence, section: Section, pages: Sequence[Page]) -> View:
    """One task on one base model."""
    mine = [page for page in pages if (page.task, page.model) == (section.task, section.model)]
    files = {page.condition: page.file for page in mine}
    rows = []
    for row in section.rows:
        cells = [
            cell(row.estimates.get(key), row.arm, published_for(evidence, row.arm, key, "all", section.model))
            for key in section.keys
        ]
        first = mine[0].file if mine and not row.hole else ""
        link = f"transcripts/{first}#arm-{row.arm.number}" if first else ""
        rows.append({"label": row.arm.label, "number": row.arm.number, "hole": row.hole, "cells": cells, "transcript": link})
    kinds = dict.fromkeys(one.interval for row in section.rows for one in row.estimates.values() if one.low is not None)
    keys = [key for key in section.keys if by_groups(key) and section.groups]
    arms = [row.arm for row in section.rows if row.estimates]
    return {
        "anchor": f"task-{section.id}",
        "title": section.title,
        "columns": section.keys,
        "rows": rows,
        "intervals": f"Intervals (95 %) are over: {'; '.join(kinds)}." if kinds else "Nothing was scored.",
        "group_keys": ", ".join(keys),
        "groups": [_group_table(evidence, section, key) for key in keys],
        "condition_arms": [arm.label for arm in arms],
        "conditions": [_condition_row(name, arms, section.means, files) for name in section.conditions],
        "pages": mine,
        "all_conditions": _conditions(evidence, section),
    }


def _conditions(evidence: Evidence, section: Section) -> int:
    rows = evidence.table[(evidence.table["task"] == section.task) & (evidence.table["base"] == section.model)]
    return int(rows["condition"].nunique())


def _group_table(evidence: Evidence, section: Section, key: str) -> View:
    rows = []
    for row in section.rows:
        cells = []
        for group in section.groups:
            printed = published_for(evidence, row.arm, key, group, section.model)
            cells.append(cell(section.by_group.get((row.arm.name, key, group)), row.arm, printed, row.hole or DASH))
        rows.append({"label": row.arm.label, "cells": cells})
    return {"key": key, "groups": section.groups, "rows": rows}


def _condition_row(name: str, arms: Sequence[ArmFacts], means: dict[tuple[str, str], Mean], files: dict[str, str]) -> View:
    file = files.get(name)
    cells = []
    for arm in arms:
        estimate, scored, planned = means.get((arm.name, name), Mean(None, 0, 0))
        cells.append(
            {
                "value": number(estimate),
                "n": "" if not planned else f"{scored:,}" if scored == planned else f"{scored:,} of {planned:,}",
                "href": f"transcripts/{file}#arm-{arm.number}" if file and planned else "",
            }
        )
    return {"name": name, "page": f"transcripts/{file}" if file else "", "cells": cells}


def contrast_views(evidence: Evidence) -> list[View]:
    """The contrasts as rows."""
    numbers = {arm.name: arm for arm in evidence.arms}
    rows = []
    for result in shown_contrasts(evidence):
        ratio = number(result.ratio, 2)
        if result.ratio_low is not None:
            ratio += f" ({number(result.ratio_low, 2)} to {number(result.ratio_high, 2)})"
        rows.append(
            {
                "name": contrast_line(evidence, result),
                "primary": result.key in FIGURE_KEYS,
                "declared": (result.a, result.b, result.group) in evidence.declared,
                "task": result.task,
                "key": result.key,
                "model": result.model or "",
                "difference": signed(result.difference),
                "interval": f"{signed(result.low)} to {signed(result.high)}" if result.low is not None else DASH,
                "kind": result.interval,
                "new": f"{signed(result.new_low)} to {signed(result.new_high)}" if result.new_low is not None else "",
                "p": p_text(result.p),
                "p_adjusted": p_text(result.p_adjusted),
                "ratio": ratio,
                "pairs": count(result.pairs) if result.pairs else DASH,
                "verdict": result.verdict,
                "labels": () if is_published(result) else result.labels,
                "logs": log_anchor(numbers[result.a], result.task),
            }
        )
    return rows


def published_views(evidence: Evidence) -> list[View]:
    """The published numbers that were asked for: a row a table, with all that is needed not to misread them."""
    tables: dict[tuple[str, str], list[PublishedValue]] = {}
    for value in evidence.comparison.published:
        tables.setdefault((value.table, value.model), []).append(value)
    rows = []
    for (_, model), values in tables.items():
        first = values[0]
        n = f"n {first.n:,} {first.n_is}" if first.n else first.n_is
        seeds = f"{first.seeds} seed{'' if first.seeds == 1 else 's'}"
        notes = dict.fromkeys(note for value in values for note in value.notes)
        rows.append(
            {
                "where": first.where if first.paper else f"{first.where} (not the paper)",
                "model": model,
                "task": first.task,
                "numbers": [f"{value.arm} {_what(value)} {number(value.value)}" for value in values],
                "what": ". ".join(part.rstrip(".") for part in (first.metric, f"Judge: {first.judge}", n, seeds, *notes)) + ".",
            }
        )
    return rows


def _what(value: PublishedValue) -> str:
    return value.key if value.group == "all" else f"{value.key} on {value.group}"
