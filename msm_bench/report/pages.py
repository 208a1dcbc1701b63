"""Templates filled in: `index.html`, `report.md`, the pages of transcripts. All is escaped but what was drawn here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from msm_bench import __version__
from msm_bench.report import facts, views
from msm_bench.report.evidence import Evidence
from msm_bench.report.figures.draw import Drawn
from msm_bench.report.measures import Section
from msm_bench.report.patterns_views import PatternsOf, pattern_tables
from msm_bench.report.text import DASH, markdown, visible
from msm_bench.report.transcripts import Page

TEMPLATES = Path(__file__).parent / "templates"
_KINDS = ("arms", "values", "conditions", "dose")


@dataclass(frozen=True)
class Picture:
    """A figure on a page, drawn at both widths."""

    name: str
    kind: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup


def make_context(
    evidence: Evidence,
    sections: Sequence[Section],
    patterns: Sequence[PatternsOf],
    figures: Sequence[Drawn],
    pages: Sequence[Page],
    date: str | None,
) -> dict[str, Any]:
    """Everything that the templates of `index.html` and `report.md` need."""
    pictures = [_picture(figure) for figure in figures]
    shown = []
    for section in sections:
        view = views.section_view(evidence, section, pages)
        names = {f"{kind}-{section.id}" for kind in _KINDS}
        shown.append({**view, "figures": [picture for picture in pictures if picture.name in names]})
    groups = {
        name: [picture for picture in pictures if picture.kind == kind]
        for name, kind in (("contrasts", "contrasts"), ("patterns", "patterns"), ("judges", "judge"), ("cost", "cost"))
    }
    context: dict[str, Any] = {
        "title": evidence.choices.title,
        "summary": evidence.choices.summary,
        "date": date,
        "version": __version__,
        "counts": _counts(evidence),
        "labels": evidence.labels,
        "sections": shown,
        "figures": groups,
        "contrasts": views.contrast_views(evidence),
        "missing_contrasts": evidence.missing_contrasts,
        "pattern_tables": pattern_tables(evidence, patterns),
        "judges": facts.judge_views(evidence, sections),
        "agreements": facts.agreement_lines(evidence),
        "costs": facts.cost_views(evidence),
        "arms": facts.arm_views(evidence),
        "recipes": facts.recipe_views(evidence),
        "deviations": facts.deviations(evidence, sections),
        "published": views.published_views(evidence),
        "logs": facts.log_views(evidence),
    }
    return {**context, "nav": _nav(context)}


def _picture(drawn: Drawn) -> Picture:
    figure = drawn.figure
    # Vega escapes what it draws; the drawing is the one thing on a page that is let through as it is.
    wide, narrow = Markup(drawn.wide), Markup(drawn.narrow)
    return Picture(figure.name, figure.name.split("-")[0], figure.title, figure.caption, wide, narrow)


def _counts(evidence: Evidence) -> str:
    rollouts = int(evidence.table["rollout"].nunique())
    present = sum(not arm.missing for arm in evidence.arms)
    logs = sum(len(arm.logs) for arm in evidence.arms)
    parts = [(present, "arm"), (logs, "log"), (rollouts, "rollout")]
    return ", ".join(f"{number:,} {name}{'' if number == 1 else 's'}" for number, name in parts)


def _nav(context: dict[str, Any]) -> list[tuple[str, str]]:
    entries = [(section["anchor"], section["title"]) for section in context["sections"]]
    if context["contrasts"] or context["missing_contrasts"]:
        entries.append(("contrasts", "Contrasts"))
    if context["figures"]["patterns"]:
        entries.append(("patterns", "Patterns"))
    entries.append(("judges", "Judge health"))
    entries += [("cost", "Cost")] if context["figures"]["cost"] else []
    entries.append(("arms", "Arms"))
    entries += [("chosen", "Chosen")] if context["recipes"] else []
    entries.append(("deviations", "Deviations"))
    return [*entries, ("logs", "Logs")]


def index_html(context: dict[str, Any]) -> str:
    """The report in one file."""
    return _environment(html=True).get_template("index.html.j2").render(context, style=_style())


def report_md(context: dict[str, Any]) -> str:
    """The report in Markdown, at most one empty line in a row."""
    text = _environment(html=False).get_template("report.md.j2").render(context)
    lines: list[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        table_goes_on = line.startswith("|") and len(lines) > 1 and not lines[-1] and lines[-2].startswith("|")
        if table_goes_on:
            lines[-1] = line
        elif line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def transcript_html(pages: Sequence[Page], number: int, report: str, rollouts: int) -> str:
    """The page of one condition, with links to its neighbours of the same task."""
    page = pages[number]
    same = [one for one in pages if (one.task, one.model) == (page.task, page.model)]
    place = same.index(page)
    return (
        _environment(html=True)
        .get_template("transcript.html.j2")
        .render(
            title=f"{page.condition} · {report}",
            report=report,
            page=page,
            rollouts=rollouts,
            before=same[place - 1] if place else None,
            after=same[place + 1] if place + 1 < len(same) else None,
            style=_style(),
        )
    )


def _style() -> Markup:
    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))


def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown if html else None,
    )
    environment.filters["md"] = markdown
    environment.filters["number"] = _markdown_number
    return environment


def _shown(value: Any) -> Any:
    """What a template prints: text has its control characters made visible before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _markdown_number(cell: dict[str, Any]) -> str:
    if cell["hole"]:
        return f"*{markdown(cell['hole'])}*" if cell["hole"] != DASH else DASH
    parts = [cell["value"]]
    parts += [f"[{cell['interval']}]"] if cell["interval"] else []
    parts += [f"n {cell['denominator']}"]
    parts += [f"bounds {cell['bounds']}"] if cell["bounds"] else []
    parts += [f"published {text}" for text in cell["published"]]
    parts += [f"({text})" for text in cell["badges"]]
    return markdown(" ".join(parts))
