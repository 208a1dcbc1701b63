"""What came of a corpus: the yield by stage, what was rejected, the balance, and the card beside the data."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.balance import balance_of, words_of
from msm_bench.corpus.pipeline.gate import Dropped
from msm_bench.corpus.pipeline.prices import Usage
from msm_bench.corpus.pipeline.store import KEPT, Store
from msm_bench.corpus.ready import Findings
from msm_bench.corpus.rows import ChatRow, DocumentRow


class StageYield(BaseModel):
    """What came of one stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    items: int
    """Items that were asked for."""
    kept: int
    """Items that fit in the end."""
    calls: int
    """Answered calls, repetitions included."""
    rejected: dict[str, int]
    """Reason to number of calls."""
    usage: Usage
    dollars: float | None
    """Absent where the price or the usage of a call is not known."""


def yields_of(store: Store) -> list[StageYield]:
    """The yield of every stage, in the order in which the stages began."""
    entries: dict[str, list[Any]] = {}
    for _, entry in store.entries():
        entries.setdefault(entry.stage, []).append(entry)
    found = []
    for stage, calls in entries.items():
        rejected = Counter(call.outcome for call in calls if call.outcome != KEPT)
        priced = all(call.dollars is not None or call.outcome == "bad_request" for call in calls)
        usage = sum((call.usage for call in calls if call.usage is not None), Usage())
        found.append(
            StageYield(
                stage=stage,
                items=len({call.item for call in calls}),
                kept=len({call.item for call in calls if call.outcome == KEPT}),
                calls=len(calls),
                rejected=dict(sorted(rejected.items())),
                usage=usage,
                dollars=round(sum(call.dollars or 0.0 for call in calls), 6) if priced else None,
            )
        )
    return found


def write_rejected(path: Path, store: Store, filtered: Iterable[str], dropped: Iterable[Dropped]) -> None:
    """The ledger of what did not become a row: stage, item, attempt, reason, what was found. Sorted, so equal runs agree."""
    lines = []
    for request, entry in store.entries():
        if entry.outcome != KEPT:
            detail = store.read(request).detail
            lines.append((entry.stage, entry.item, entry.attempt, entry.outcome, detail))
    lines += [("filter", item, 1, "filtered", "the verdict was DROP") for item in filtered]
    lines += [("checks", drop.row, 1, drop.check, f"{drop.reason}: {drop.found}") for drop in dropped]
    names = ("stage", "item", "attempt", "reason", "detail")
    text = "".join(json.dumps(dict(zip(names, line, strict=True)), ensure_ascii=False) + "\n" for line in sorted(lines))
    path.write_text(text, encoding="utf-8")


def yield_table(yields: Sequence[StageYield]) -> Any:
    """The yield by stage for the terminal."""
    from rich.table import Table

    table = Table("Stage", "Items", "Kept", "Calls", "Rejected")
    for stage in yields:
        table.add_row(stage.stage, f"{stage.items:,}", f"{stage.kept:,}", f"{stage.calls:,}", _reasons(stage))
    return table


def card(
    rows: Sequence[DocumentRow | ChatRow], yields: Sequence[StageYield], findings: Findings, facts: dict[str, object]
) -> str:
    """`card.md`.

    Args:
        rows: The rows of the corpus, at least one.
        yields: The yield of every stage.
        findings: What the last look found in the rows.
        facts: The other slots of the template `card.md`.
    """
    template = (files("msm_bench") / "corpus" / "pipeline" / "card.md").read_text(encoding="utf-8")
    table = ["| Stage | Items | Kept | Calls | Rejected |", "|---|---|---|---|---|"]
    table += [f"| {stage.stage} | {stage.items:,} | {stage.kept:,} | {stage.calls:,} | {_reasons(stage)} |" for stage in yields]
    balance = [
        f"- By {name}: {len(counts)} of them, the largest with {max(counts.values())} rows, the smallest with "
        f"{min(counts.values())}."
        for name, counts in balance_of(rows).items()
    ]
    shortest, middle, longest = findings.words
    return Template(template).substitute(
        {name: str(value) for name, value in facts.items()},
        rows=f"{len(rows):,}",
        length=f"{words_of(rows):,} words; a row has {shortest:,} to {longest:,}, half of them at most {middle:,}",
        yields="\n".join(table),
        balance="\n".join(balance),
        checks=findings.sentence,
    )


def _reasons(stage: StageYield) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in stage.rejected.items()) or "-"
