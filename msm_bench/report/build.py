"""`msm-bench report`: evidence -> figures, tables and pages, written whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msm_bench import __version__
from msm_bench.artefacts import sha256_of_file, sha256_of_value
from msm_bench.errors import RequestError
from msm_bench.report.choices import load_choices
from msm_bench.report.evidence import Evidence, gather
from msm_bench.report.facts import deviations
from msm_bench.report.figures.all import all_figures
from msm_bench.report.figures.draw import Drawn, draw
from msm_bench.report.files import write_tables
from msm_bench.report.measures import Section, sections
from msm_bench.report.pages import index_html, make_context, report_md, transcript_html
from msm_bench.report.patterns_views import gather_patterns, write_patterns
from msm_bench.report.text import interval, number
from msm_bench.report.transcripts import pages

RECORD = "report.json"
_PARTIAL = ".partial-"


class Line(BaseModel):
    """One arm's headline number on one task, for the summary."""

    model_config = ConfigDict(frozen=True)

    task: str
    model: str
    key: str
    arm: str
    estimate: float | None
    low: float | None
    high: float | None
    n_scored: int
    n: int
    hole: str


class Report(BaseModel):
    """What was written. `files` are relative to `out`; `deviations` are those that the page lists."""

    model_config = ConfigDict(frozen=True)

    out: Path
    files: tuple[str, ...]
    arms: int
    logs: int
    lines: tuple[Line, ...]
    contrasts: int
    deviations: tuple[str, ...]


def report(
    logdirs: Sequence[str | Path] | str | Path,
    out: str | Path,
    date: str | None = None,
    choices: str | Path | None = None,
    against: str | Path | None = None,
    contrasts: Sequence[str] = (),
    insist: bool = False,
) -> Report:
    """Writes a report.

    Args:
        logdirs: Logs or folders of logs.
        out: Folder to write; an earlier report there is replaced.
        date: Printed as it is. Nothing else in the report depends on when it was made.
        choices: A YAML file, see `choices`.
        against: `published:NAME`, or a log or folder whose arms every arm is set against; wins over the file of choices.
        contrasts: More comparisons than those declared in the file of choices. With none in either, those that the experiment
            declares whose folder this is.
        insist: Put also what was not measured alike into one table, with a label instead of a refusal.

    Raises:
        RequestError: No logs, choices that do not fit, what was not measured alike, or a folder that holds something else.
    """
    folder = Path(out).expanduser()
    _refuse_other_folder(folder)
    paths = [logdirs] if isinstance(logdirs, str | Path) else list(logdirs)
    chosen = load_choices(choices)
    wanted = chosen.against if against is None else str(against)
    evidence = gather(paths, folder, chosen, wanted, contrasts, insist)
    found = sections(evidence)
    folder.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
    try:
        _write(evidence, found, working, date)
        files = _seal(evidence, working)
        _put(working, folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return Report(
        out=folder,
        files=files,
        arms=sum(not arm.missing for arm in evidence.arms),
        logs=sum(len(arm.logs) for arm in evidence.arms),
        lines=tuple(_lines(found)),
        contrasts=len(evidence.comparison.contrasts),
        deviations=tuple(deviations(evidence, found)),
    )


def _refuse_other_folder(folder: Path) -> None:
    """Raises `RequestError` where `out` holds anything but an earlier report."""
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"'{folder}' holds something that is no report.", "Name a new or empty folder with --out.")


def _write(evidence: Evidence, found: Sequence[Section], folder: Path, date: str | None) -> None:
    patterns = gather_patterns(evidence)
    figures = [draw(figure) for figure in all_figures(evidence, found, patterns)]
    _write_figures(figures, folder / "figures")
    write_tables(evidence, folder)
    write_patterns(patterns, folder)
    shown = pages(evidence, found)
    context = make_context(evidence, found, patterns, figures, shown, date)
    _text(folder / "index.html", index_html(context))
    _text(folder / "report.md", report_md(context))
    for place, page in enumerate(shown):
        bounds = evidence.choices.transcripts
        _text(folder / "transcripts" / page.file, transcript_html(shown, place, evidence.choices.title, bounds.rollouts))


def _write_figures(figures: Sequence[Drawn], folder: Path) -> None:
    for drawn in figures:
        name = drawn.figure.name
        _text(folder / f"{name}.svg", drawn.svg)
        (folder / f"{name}.png").write_bytes(drawn.png)
        _text(folder / f"{name}.json", drawn.vega)


def _text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8"))


def _seal(evidence: Evidence, folder: Path) -> tuple[str, ...]:
    """Writes the record of what the report was made from and what it holds; returns the names of all files."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    record = {
        "kind": "report",
        "msm_bench": __version__,
        "logs": {log.link: log.sha256 for arm in evidence.arms for log in arm.logs},
        "checkpoints": sorted({stage.id for arm in evidence.arms for lineage in arm.lineages for stage in lineage.stages}),
        "choices": sha256_of_value(evidence.choices.model_dump(mode="json")),
        "files": {name: sha256_of_file(folder / name) for name in names},
    }
    _text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return (*names, RECORD)


def _put(working: Path, folder: Path) -> None:
    """Puts the finished folder in its place; an earlier report goes once the new one is there."""
    working.chmod(0o755)
    if not folder.exists():
        working.replace(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
    folder.replace(old / "old")
    working.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _lines(found: Sequence[Section]) -> list[Line]:
    lines = []
    for section in found:
        for row in section.rows:
            one = row.estimates.get(section.headline)
            lines.append(
                Line(
                    task=section.task,
                    model=section.model,
                    key=section.headline,
                    arm=row.arm.label,
                    estimate=one.estimate if one else None,
                    low=one.low if one else None,
                    high=one.high if one else None,
                    n_scored=one.n_scored if one else 0,
                    n=one.n if one else 0,
                    hole=row.hole,
                )
            )
    return lines


def render(found: Report) -> RenderableType:
    """The summary: a table a task and base model, what to know before reading, and where the pages are."""
    parts: list[RenderableType] = []
    for task, model in dict.fromkeys((line.task, line.model) for line in found.lines):
        mine = [line for line in found.lines if (line.task, line.model) == (task, model)]
        table = Table(title=f"{task} · {model}", title_justify="left")
        table.add_column("arm")
        for name in (mine[0].key, "95 % interval", "n"):
            table.add_column(name, justify="right")
        for line in mine:
            n = f"{line.n_scored:,}" if line.n_scored == line.n else f"{line.n_scored:,} of {line.n:,}"
            values = (line.hole, "", "") if line.hole else (number(line.estimate), interval(line.low, line.high), n)
            table.add_row(Text(line.arm), *map(Text, values))
        parts.append(table)
    parts += [Text(f"- {text}") for text in found.deviations]
    parts.append(Text(f"{len(found.files)} files. Open {found.out / 'index.html'}"))
    return Group(*parts)
