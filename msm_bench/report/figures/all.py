"""Which figures a report has: those that its evidence can fill."""

from collections.abc import Sequence

from msm_bench.analysis.contrasts import SIGNIFICANCE
from msm_bench.analysis.estimates import UNSCORED_LIMIT, Estimate
from msm_bench.report.evidence import ArmFacts, Evidence
from msm_bench.report.figures.bars import BarPanel, Part, bars
from msm_bench.report.figures.dose import Level, Point, dose
from msm_bench.report.figures.dots import Dot, Panel, dots
from msm_bench.report.figures.draw import NARROW, Figure
from msm_bench.report.figures.forest import Line, forest
from msm_bench.report.figures.heat import Field, heat
from msm_bench.report.measures import (
    FIGURE_KEYS,
    Section,
    contrast_line,
    domain,
    figure_keys,
    is_published,
    published_conditions,
    published_for,
    shown_contrasts,
)
from msm_bench.report.patterns_views import PatternsOf, monitor_figures, share_dot
from msm_bench.scorers.patterns import load_taxonomy

_MARKS = "Dot: measured. Thick bar: 95 % interval of the kind that the table names."
_HOLLOW = " Hollow diamond: the published number of the same arm."
_THIN = " Thin bar: 95 % interval for new conditions."
_CONTRASTS = (
    "a minus b with the 95 % interval. Pale: not shown after Holm's adjustment. Hollow: b is a published number, "
    "taken as exact."
)
_CONDITIONS = "Each number is the mean over the condition's scored rollouts; a dash where nothing was scored."
_DOSE = (
    "Tokens trained on, every epoch counted, from the checkpoints' manifests: fine-tuning alone (as the paper counts) and all "
    "stages (what was paid). Dashed: arms without such tokens."
)


def all_figures(evidence: Evidence, sections: Sequence[Section], patterns: Sequence[PatternsOf]) -> list[Figure]:
    """Every figure that can be drawn, in the order of the page."""
    figures: list[Figure] = []
    for section in sections:
        figures.append(_arms(evidence, section))
        if section.task == "value_preferences" and len(section.groups) > 1:
            figures.append(_values(evidence, section))
        figures += _conditions(evidence, section)
        figures += _dose(evidence, section)
    if panels := _contrast_panels(evidence):
        caption = _CONTRASTS
        figures.append(Figure("contrasts", "Contrasts", caption, lambda width: forest(panels, width)))
    figures += _patterns(evidence, patterns)
    figures += _judges(evidence, sections)
    figures += _cost(evidence)
    return figures


def _dot(evidence: Evidence, arm: ArmFacts, estimate: Estimate | None, key: str, group: str, model: str, hole: str) -> Dot:
    printed = tuple(dict.fromkeys(value.value for value in published_for(evidence, arm, key, group, model)))
    if estimate is None or estimate.estimate is None:
        return Dot(arm.label, published=printed, hole=hole or ("nothing scored" if estimate else "not measured"))
    new = estimate.new_conditions
    return Dot(
        arm=arm.label,
        value=estimate.estimate,
        low=estimate.low,
        high=estimate.high,
        new_low=new.low if new else None,
        new_high=new.high if new else None,
        published=printed,
    )


def _panel(evidence: Evidence, section: Section, key: str, group: str, title: str) -> Panel:
    found = {
        row.arm.name: row.estimates.get(key) if group == "all" else section.by_group.get((row.arm.name, key, group))
        for row in section.rows
    }
    rows = tuple(_dot(evidence, row.arm, found[row.arm.name], key, group, section.model, row.hole) for row in section.rows)
    return Panel(title, domain(key, [one for one in found.values() if one]), rows)


def _marks(panels: Sequence[Panel]) -> str:
    every = [dot for panel in panels for dot in panel.dots]
    thin = _THIN if any(dot.new_low is not None for dot in every) else ""
    return _MARKS + thin + (_HOLLOW if any(dot.published for dot in every) else "")


def _arms(evidence: Evidence, section: Section) -> Figure:
    panels = [_panel(evidence, section, key, "all", key) for key in figure_keys(section)]
    return Figure(
        name=f"arms-{section.id}",
        title=f"Arms: {section.title}",
        caption=_marks(panels),
        chart=lambda width: dots(panels, width, len(panels) if width > NARROW else 1),
    )


def _values(evidence: Evidence, section: Section) -> Figure:
    panels = [_panel(evidence, section, section.headline, group, group) for group in section.groups]
    return Figure(
        name=f"values-{section.id}",
        title=f"Value generalisation: {section.model}",
        caption=f"Share of pairs in which the side that the value favours is preferred, by value. {_marks(panels)}",
        chart=lambda width: dots(panels, width, 2 if width > NARROW else 1),
    )


def _conditions(evidence: Evidence, section: Section) -> list[Figure]:
    rows, means = section.conditions, section.means
    arms = [row.arm for row in section.rows if row.estimates]
    if len(rows) < 2:
        return []
    fields = [
        Field(row, arm.label, means[arm.name, row][0] if (arm.name, row) in means else None) for row in rows for arm in arms
    ]
    columns = [arm.label for arm in arms]
    for value in published_conditions(evidence, section):
        name = f"{value.where}: {value.arm}"
        columns += [] if name in columns else [name]
        fields.append(Field(value.group, name, value.value))
    values = [value for value, _, _ in means.values() if value is not None]
    ends = domain(section.headline, [])
    # A scale without ends of its own takes those of its numbers.
    ends = (min(values), max(values)) if ends == (-0.05, 1.05) and values else ends
    return [
        Figure(
            name=f"conditions-{section.id}",
            title=f"Conditions by arms: {section.headline}, {section.title}",
            caption=_CONDITIONS,
            chart=lambda width: heat(fields, rows, columns, ends, width),
        )
    ]


def _dose(evidence: Evidence, section: Section) -> list[Figure]:
    tuned: list[Point] = []
    whole: list[Point] = []
    flat: tuple[list[Level], list[Level]] = ([], [])
    for row in section.rows:
        estimate = row.estimates.get(section.headline)
        if estimate is None or estimate.estimate is None:
            continue
        lineages = row.arm.lineages_on(section.model)
        if not lineages or any(lineage.problem for lineage in lineages):
            continue
        for kind, points, levels in ((False, tuned, flat[0]), (True, whole, flat[1])):
            counts = [lineage.tokens(documents=kind) for lineage in lineages]
            if not any(counts):
                levels.append(Level(row.arm.label, estimate.estimate))
            else:
                # The seeds of an arm read the same corpora; where their counts differ by a split, the first one's stands.
                points.append(Point(lineages[0].series, counts[0], estimate.estimate, estimate.low, estimate.high))
    if len(tuned) < 2 or len({point.tokens for point in (*tuned, *whole)}) < 2:
        return []
    panels = [("tokens of fine-tuning", tuned, flat[0]), ("all tokens of training", whole, flat[1])]
    found = [row.estimates[section.headline] for row in section.rows if section.headline in row.estimates]
    ends = domain(section.headline, found)
    return [
        Figure(
            name=f"dose-{section.id}",
            title=f"Dose: {section.headline}, {section.title}",
            caption=_DOSE,
            chart=lambda width: dose(panels, section.headline, ends, width),
        )
    ]


def _contrast_panels(evidence: Evidence) -> list[tuple[str, list[Line]]]:
    panels: dict[str, list[Line]] = {}
    for result in shown_contrasts(evidence):
        if result.key not in FIGURE_KEYS or result.difference is None or result.low is None or result.high is None:
            continue
        title = f"{result.task}: {result.key}" + (f", {result.model}" if result.model else "")
        line = Line(
            name=contrast_line(evidence, result),
            difference=result.difference,
            low=result.low,
            high=result.high,
            shown=result.p_adjusted is not None and result.p_adjusted < SIGNIFICANCE,
            published=is_published(result),
        )
        panels.setdefault(title, []).append(line)
    return [(title, _distinct(lines)) for title, lines in panels.items()]


def _distinct(lines: Sequence[Line]) -> list[Line]:
    """The lines, one a name: a figure's rows are told apart by their names."""
    return list({line.name: line for line in lines}.values())


def _patterns(evidence: Evidence, found: Sequence[PatternsOf]) -> list[Figure]:
    taxonomy = {pattern.id: pattern for pattern in load_taxonomy().patterns}
    figures = []
    for number, one in enumerate(found, start=1):
        for side in ("misaligned", "aligned", "other"):
            mine = [key for key in one.keys if (taxonomy[key].side if key in taxonomy else "other") == side]
            if not mine:
                continue
            panels = [
                Panel(one.name(key), (0.0, 1.0), tuple(share_dot(evidence, one, arm, key) for arm in one.arms)) for key in mine
            ]
            figures.append(
                Figure(
                    name=f"patterns-{side}-{number}",
                    title=f"Reasoning patterns, {side}: {one.model}",
                    caption=f"Share of rollouts whose reasoning shows the pattern. {_marks(panels)}",
                    chart=lambda width, panels=panels: dots(panels, width, 2 if width > NARROW else 1),  # type: ignore[misc]
                )
            )
    return [*figures, *monitor_figures(evidence, found)]


def _judges(evidence: Evidence, sections: Sequence[Section]) -> list[Figure]:
    panels = []
    for section in sections:
        rows = [row for row in section.rows if section.headline in row.estimates]
        parts = [
            Part(row.arm.label, reason, count / row.estimates[section.headline].n)
            for row in rows
            for reason, count in row.estimates[section.headline].unscored.items()
        ]
        title = f"{section.headline}, {section.title}: rollouts without a score"
        arms = tuple(row.arm.label for row in rows)
        panels.append(BarPanel(title, "share of all rollouts", ".0%", tuple(parts), arms, UNSCORED_LIMIT, least=0.05))
    if not panels:
        return []
    caption = f"Why rollouts have no score. Right of the dashed line ({UNSCORED_LIMIT:.0%}) an arm cannot be called better."
    return [Figure("judge-health", "Judge health", caption, lambda width: bars(panels, width))]


def _cost(evidence: Evidence) -> list[Figure]:
    arms = [arm for arm in evidence.arms if arm.spent is not None]
    names = tuple(arm.label for arm in arms)
    parts: list[Part] = []
    for arm in arms:
        for who, tokens in (("the model", arm.spent.subject), ("judges", arm.spent.judges)) if arm.spent else ():
            if tokens is not None:
                parts += [Part(arm.label, f"read by {who}", tokens.read), Part(arm.label, f"written by {who}", tokens.written)]
    trained = [
        Part(arm.label, stage.trainer, stage.tokens) for arm in arms for lineage in arm.lineages for stage in lineage.stages
    ]
    panels = []
    if parts:
        panels.append(BarPanel("Evaluation", "tokens", "~s", tuple(parts), names))
    if trained:
        panels.append(BarPanel("Training, all seeds", "tokens, every epoch", "~s", tuple(trained), names))
    caption = "Tokens by the logs' and the manifests' own counts. A stage that several arms share is drawn at each of them."
    return [Figure("cost", "Cost", caption, lambda width: bars(panels, width))] if panels else []
