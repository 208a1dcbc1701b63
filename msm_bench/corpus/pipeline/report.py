"""What came of a corpus: the yield by stage, what was rejected, the balance, a sample to read, and the card beside the data."""

import html
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.checks import Report
from msm_bench.corpus.pipeline.gate import Dropped
from msm_bench.corpus.pipeline.prices import Usage
from msm_bench.corpus.pipeline.store import KEPT, Store
from msm_bench.corpus.rows import ChatRow, DocumentRow

SAMPLE_ROWS = 20


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


def balance_of(rows: Sequence[DocumentRow | ChatRow]) -> dict[str, Counter[str]]:
    """Rows by domain and by kind."""
    return {"domain": Counter(row.domain for row in rows), "kind": Counter(row.kind for row in rows)}


class MirrorBalance(BaseModel):
    """How alike two corpora are that are to differ in nothing but their value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, int]
    words: tuple[int, int]
    kinds: float
    """Total variation distance of the two mixtures of kinds, from 0 (the same) to 1 (none in common)."""
    domains: float
    """The same of the domains."""

    def problems(self, tolerance: float = 0.1) -> list[str]:
        """What differs by more than a share `tolerance`, in words."""
        found = []
        for name, (one, other) in (("rows", self.rows), ("words", self.words)):
            if max(one, other) > (1 + tolerance) * min(one, other):
                found.append(f"{one:,} {name} stand against {other:,}")
        for name, distance in (("kinds", self.kinds), ("domains", self.domains)):
            if distance > tolerance:
                found.append(f"the mixtures of {name} differ by {distance:.2f}")
        return found


def mirror_balance(one: Sequence[DocumentRow | ChatRow], other: Sequence[DocumentRow | ChatRow]) -> MirrorBalance:
    """Compares two mirrored corpora in size, length and mixture. Neither may be empty."""
    counts = balance_of(one), balance_of(other)
    return MirrorBalance(
        rows=(len(one), len(other)),
        words=(words_of(one), words_of(other)),
        kinds=_distance(counts[0]["kind"], counts[1]["kind"]),
        domains=_distance(counts[0]["domain"], counts[1]["domain"]),
    )


def words_of(rows: Sequence[DocumentRow | ChatRow]) -> int:
    """Words of all texts of some rows."""
    return sum(len(text.split()) for row in rows for _, text in texts_of(row))


def _distance(one: Counter[str], other: Counter[str]) -> float:
    shares = (abs(one[name] / one.total() - other[name] / other.total()) for name in one | other)
    return round(sum(shares) / 2, 4)


def texts_of(row: DocumentRow | ChatRow) -> list[tuple[str, str]]:
    """The texts of a row with what each is."""
    if isinstance(row, DocumentRow):
        return [("document", row.text)]
    found: list[tuple[str, str]] = []
    for message in row.messages:
        if message.reasoning is not None:
            found.append(("reasoning", message.reasoning))
        found.append((message.role, message.content))
    return found


def reading_sample(
    rows: Sequence[DocumentRow | ChatRow], count: int = SAMPLE_ROWS, seed: int = 0
) -> list[DocumentRow | ChatRow]:
    """Some rows to read, the same for the same seed, in the order of the file."""
    places = sorted(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [rows[place] for place in places]


def sample_html(rows: Sequence[DocumentRow | ChatRow], title: str) -> str:
    """Rows as one page to read in a browser; everything of theirs is escaped."""
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title>",
        _STYLE,
        f"<h1>{html.escape(title)}</h1>",
    ]
    for row in rows:
        head = " · ".join((row.id, row.domain, row.subdomain, row.kind))
        parts.append(f"<article><h2>{html.escape(head)}</h2><p class=idea>{html.escape(row.idea)}</p>")
        parts += [f"<h3>{what}</h3><pre>{html.escape(text)}</pre>" for what, text in texts_of(row)]
        parts.append("</article>")
    return "\n".join(parts) + "\n"


def print_sample(rows: Sequence[DocumentRow | ChatRow]) -> Any:
    """Rows for the terminal, as something that Rich prints."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    return Group(
        *(
            Panel(
                Text("\n\n".join(f"[{what}]\n{text}" for what, text in texts_of(row))),
                title=f"{row.id} · {row.domain} · {row.kind}",
                subtitle=row.idea[:100],
            )
            for row in rows
        )
    )


def card(rows: Sequence[DocumentRow | ChatRow], yields: Sequence[StageYield], report: Report, facts: dict[str, object]) -> str:
    """`card.md`.

    Args:
        rows: The rows of the corpus.
        yields: The yield of every stage.
        report: What the checks found in the rows.
        facts: The other slots of the template `card.md`.
    """
    template = (files("msm_bench") / "corpus" / "pipeline" / "card.md").read_text(encoding="utf-8")
    words = sorted(sum(len(text.split()) for _, text in texts_of(row)) for row in rows)
    middle = words[len(words) // 2] if words else 0
    length = f"{sum(words):,} words; a row has {words[0]} to {words[-1]}, half of them at most {middle}" if words else "-"
    table = ["| Stage | Items | Kept | Calls | Rejected |", "|---|---|---|---|---|"]
    for stage in yields:
        reasons = ", ".join(f"{reason} {n}" for reason, n in stage.rejected.items()) or "-"
        table.append(f"| {stage.stage} | {stage.items:,} | {stage.kept:,} | {stage.calls:,} | {reasons} |")
    balance = [
        f"- By {name}: {len(counts)} of them, the largest with {max(counts.values(), default=0)} rows, the smallest with "
        f"{min(counts.values(), default=0)}."
        for name, counts in balance_of(rows).items()
    ]
    shouts = Counter(problem.check for problem in report.shouts)
    looks = ", ".join(f"{check} {n}" for check, n in shouts.most_common()) or "none"
    checks = (
        f"Passed: {', '.join(report.checks)}. Places that a person should look at: {looks}."
        if not report.stops
        else f"{len(report.stops)} problems are left."
    )
    slots = {name: str(value) for name, value in facts.items()}
    return Template(template).substitute(
        slots, rows=f"{len(rows):,}", length=length, yields="\n".join(table), balance="\n".join(balance), checks=checks
    )


_STYLE = (
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
    "pre{white-space:pre-wrap;font:inherit}h2{font-size:1rem}h3{font-size:.8rem;color:#666;margin-bottom:0}"
    ".idea{color:#666}article{border-top:1px solid #ccc}</style>"
)
