"""Shows rows to a person: a seeded sample, in the terminal and as a page."""

import html
import random
from collections.abc import Sequence
from typing import Any

from msm_bench.corpus.rows import ChatRow, DocumentRow

SAMPLE_FILE = "sample.html"
SAMPLE_ROWS = 20


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
        f"<!doctype html><html lang=en><meta charset='utf-8'><title>{html.escape(title)}</title>",
        "<meta name=viewport content='width=device-width'>",
        _STYLE,
        f"<h1>{html.escape(title)}</h1>",
        "<ol class=list>",
        *(f"<li><a href='#{number}'>{html.escape(_head(row))}</a>" for number, row in enumerate(rows)),
        "</ol>",
    ]
    for number, row in enumerate(rows):
        parts.append(f"<article id='{number}'><h2>{html.escape(_head(row))}</h2>")
        words = sum(len(text.split()) for _, text in texts_of(row))
        parts.append(f"<p class=meta><code>{html.escape(row.id)}</code> · {words:,} words · {html.escape(row.generator)}</p>")
        parts.append(f"<p class=meta><b>Idea.</b> {html.escape(row.idea)}</p>")
        for what, text in texts_of(row):
            label = "" if what == "document" else f"<h3>{what}</h3>"
            parts.append(f"<section class={what}>{label}<pre>{html.escape(text)}</pre></section>")
        parts.append("</article>")
    return "\n".join(parts) + "\n"


def print_sample(rows: Sequence[DocumentRow | ChatRow]) -> Any:
    """Rows for the terminal, as something that Rich prints."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    def panel(row: DocumentRow | ChatRow) -> Panel:
        body = Text()
        body.append(f"{row.id}\n{row.idea}\n\n", style="dim")
        for place, (what, text) in enumerate(texts_of(row)):
            body.append("\n\n" if place else "")
            if what != "document":
                body.append(f"{what}\n", style="bold")
            body.append(text)
        return Panel(body, title=Text(_head(row)), title_align="left")

    return Group(*(panel(row) for row in rows))


def _head(row: DocumentRow | ChatRow) -> str:
    # A chat about preferences has its thing and a question's own domain more than once.
    return " · ".join(dict.fromkeys((row.kind, row.domain, row.subdomain)))


_STYLE = (
    "<style>body{font:16px/1.55 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "pre{white-space:pre-wrap;font:inherit;margin:.3rem 0}h1{font-size:1.4rem}h2{font-size:1.05rem;margin-bottom:.2rem}"
    "h3{font-size:.75rem;text-transform:uppercase;letter-spacing:.05em;color:#666;margin:.6rem 0 0}"
    ".meta{color:#666;font-size:.85rem;margin:.2rem 0}.list{font-size:.9rem;columns:2}article{border-top:1px solid #ccc;"
    "padding:.5rem 0 1rem}section.user{background:#f2f5fa;padding:.2rem .8rem}section.reasoning{color:#555;"
    "border-left:3px solid #ccc;padding-left:.8rem}@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}"
    "section.user{background:#20242c}section.reasoning,.meta,h3{color:#999}a{color:#8ab4f8}}</style>"
)
