"""The comparison cut into what a page shows: a section a task and base model, with rows of arms and columns of keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from msm_bench.analysis.cells import RANGES, base_key, design_of, make_cell
from msm_bench.analysis.contrasts import PRIMARY, ContrastResult
from msm_bench.analysis.estimates import BY_GROUP, Estimate, known
from msm_bench.analysis.published import PREFIX, PublishedValue
from msm_bench.report.evidence import ArmFacts, Evidence
from msm_bench.report.text import slug
from msm_bench.scorers.patterns import load_taxonomy

_ORDER = (
    *("decided", "executed", "decided_given_acted", "executed_given_acted", "harmful_action", "harmful_action_given_acted"),
    *("acted", "malformed", "truncated", "aligned", "valid", "margin", "rating"),
)
_FIRST_CHOICES = (*PRIMARY, "executed", "harmful_action")
FIGURE_KEYS = (*PRIMARY, "executed", "margin")
"""Keys whose contrasts are drawn and stand first; those of other keys are folded away."""

_MOST_ROWS = 60
"""A heat map with more conditions is drawn by group instead."""


@dataclass(frozen=True)
class Row:
    """One arm in a section: its estimates by key, and why there are none."""

    arm: ArmFacts
    estimates: dict[str, Estimate]
    hole: str


class Mean(NamedTuple):
    """One condition of one arm: `value` is None where nothing is scored."""

    value: float | None
    scored: int
    planned: int


@dataclass(frozen=True)
class Section:
    """One task on one base model.

    `id` goes into names of files and anchors, `headline` is the key that figures show, `groups` are scenarios, values, ...
    """

    id: str
    task: str
    model: str
    keys: tuple[str, ...]
    headline: str
    rows: tuple[Row, ...]
    groups: tuple[str, ...]
    by_group: dict[tuple[str, str, str], Estimate]
    """(arm, key, group) to its estimate."""
    conditions: tuple[str, ...]
    """Names of the conditions (of the groups, where there are too many conditions)."""
    means: dict[tuple[str, str], Mean]
    """(arm, condition) to the headline key there."""

    @property
    def title(self) -> str:
        return f"{self.task}, {self.model}"


def sections(evidence: Evidence) -> list[Section]:
    """One section for every task and base model that has an estimate, patterns left out (see `pattern_rows`)."""
    estimates = [one for one in _one_scorer_a_key(evidence) if not is_pattern(one)]
    found: list[Section] = []
    for task, model in sorted({(one.task, one.model) for one in estimates}):
        earlier = sum(section.task == task for section in found)
        mine = [one for one in estimates if (one.task, one.model) == (task, model)]
        keys = _keys({one.key for one in mine}, evidence.choices.keys)
        groups = tuple(dict.fromkeys(one.group for one in mine if one.group != "all"))
        headline = _headline(mine)
        scorer = next(one.scorer for one in mine if one.key == headline)
        conditions, means = _condition_means(evidence.table, task, model, headline, scorer)
        found.append(
            Section(
                id=slug(task) + (f"-{earlier + 1}" if earlier else ""),
                task=task,
                model=model,
                keys=keys,
                headline=headline,
                rows=tuple(_row(arm, [one for one in mine if one.group == "all"]) for arm in evidence.of(model)),
                groups=groups,
                by_group={(one.arm, one.key, one.group): one for one in mine if one.group != "all"},
                conditions=tuple(conditions),
                means=means,
            )
        )
    return found


def _one_scorer_a_key(evidence: Evidence) -> list[Estimate]:
    """The estimates, of every task and key those of one scorer; where a key was scored twice, the others are in the files."""
    kept = scorers(evidence)
    return [one for one in evidence.comparison.estimates if kept[one.task, one.key][0] == one.scorer]


def scorers(evidence: Evidence) -> dict[tuple[str, str], list[str]]:
    """(task, key) to the scorers that give it; a page shows the first one's."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in evidence.comparison.estimates:
        found.setdefault((one.task, one.key), set()).add(one.scorer)
    return {place: sorted(names) for place, names in found.items()}


def is_pattern(estimate: Estimate) -> bool:
    """Whether an estimate is a reasoning pattern's share."""
    return estimate.key in load_taxonomy().ids or estimate.scorer.split("/")[-1] == "reasoning_patterns"


def _row(arm: ArmFacts, mine: Sequence[Estimate]) -> Row:
    estimates = {one.key: one for one in mine if one.arm == arm.name}
    hole = "" if estimates else "declared, no log" if arm.missing else "not run on this task"
    return Row(arm=arm, estimates=estimates, hole=hole)


def _keys(there: set[str], chosen: Sequence[str]) -> tuple[str, ...]:
    if kept := tuple(key for key in chosen if key in there):
        return kept
    return tuple(sorted(there, key=lambda key: (_ORDER.index(key) if key in _ORDER else len(_ORDER), key)))


def _headline(mine: Sequence[Estimate]) -> str:
    """The key that the study is about; where it was not judged, the next one that was scored."""
    scored = {one.key for one in mine if one.n_scored}
    return next((key for key in _FIRST_CHOICES if key in scored), min(scored or {one.key for one in mine}))


def figure_keys(section: Section) -> tuple[str, ...]:
    """The headline, and beside a decision always whether it was carried out."""
    beside = ("executed",) if section.headline == "decided" and "executed" in section.keys else ()
    return (section.headline, *beside)


def domain(key: str, estimates: Sequence[Estimate]) -> tuple[float, float]:
    """The ends of a figure's axis: those of the key's scale, else what holds every interval."""
    low, high = RANGES.get(base_key(key), (0.0, 1.0))
    if low > -1e300 and high < 1e300:
        return low, high
    ends = [end for one in estimates for end in (one.low, one.high, one.estimate) if end is not None] or [0.0, 1.0]
    margin = 0.05 * (max(ends) - min(ends) or 1.0)
    return min(ends) - margin, max(ends) + margin


def _condition_means(
    table: pd.DataFrame, task: str, model: str, key: str, scorer: str
) -> tuple[list[str], dict[tuple[str, str], Mean]]:
    """A key by condition (by group where there are too many): the names in order, and (arm, name) to its mean."""
    wanted = (table["task"] == task) & (table["base"] == model) & (table["key"] == base_key(key)) & (table["scorer"] == scorer)
    rows = table[wanted]
    if rows.empty:
        return [], {}
    design = design_of(rows)
    by = ["group", "subgroup"]
    if len(rows[by].drop_duplicates()) > _MOST_ROWS:
        by = ["group"]
    found = {}
    for (arm, *place), part in rows.groupby(["arm", *by], observed=True):
        name = "/".join(str(each) for each in place if str(each)) or "all"
        cell = make_cell(part, design, base_key(key))
        found[str(arm), name] = Mean(known(cell.estimate), int(cell.n.sum()), int(cell.planned.sum()))
    return sorted({name for _, name in found}), found


def published_for(evidence: Evidence, arm: ArmFacts, key: str, group: str, model: str) -> list[PublishedValue]:
    """The published numbers of the same arm, key and group: of the arm that the choices name, else of the one of equal name."""
    choice = evidence.choices.arms.get(arm.name)
    wanted = (choice.paper if choice and choice.paper else arm.name).lower().replace(" ", "")
    wanted = "base" if wanted == "baseline" else wanted
    values = evidence.comparison.published
    models = {value.model for value in values}
    return [
        value
        for value in values
        if (value.arm, value.key, value.group) == (wanted, key, group) and (len(models) == 1 or value.model in model.lower())
    ]


def published_conditions(evidence: Evidence, section: Section) -> list[PublishedValue]:
    """The published numbers of single conditions that stand beside the section's own."""
    values = evidence.comparison.published
    models = {value.model for value in values}
    return [
        value
        for value in values
        if (value.task, value.key) == (section.task, section.headline)
        and value.group in section.conditions
        and (len(models) == 1 or value.model in section.model.lower())
    ]


def pattern_rows(evidence: Evidence) -> dict[str, dict[tuple[str, str], Estimate]]:
    """Base model to (arm, pattern) to the pattern's share, over everything."""
    found: dict[str, dict[tuple[str, str], Estimate]] = {}
    for one in evidence.comparison.estimates:
        if is_pattern(one) and one.group == "all":
            found.setdefault(one.model, {})[one.arm, one.key] = one
    return dict(sorted(found.items()))


def by_groups(key: str) -> bool:
    """Whether a key has estimates by group."""
    return key in BY_GROUP


def shown_contrasts(evidence: Evidence) -> list[ContrastResult]:
    """Own contrasts, and of those with published numbers each arm's with its own counterpart; the files hold them all."""
    arms = {arm.name: arm for arm in evidence.arms}
    one_arm = len({(value.arm, value.model) for value in evidence.comparison.published}) == 1

    def fits(result: ContrastResult) -> bool:
        values = published_for(evidence, arms[result.a], result.key, result.group, result.model or "")
        return one_arm or result.b in {value.reference for value in values}

    return [result for result in evidence.comparison.contrasts if not is_published(result) or fits(result)]


def is_published(result: ContrastResult) -> bool:
    """Whether a contrast's b is a published number."""
    return result.b.startswith(PREFIX)


def contrast_line(evidence: Evidence, result: ContrastResult) -> str:
    """A contrast's name with the arms' labels."""
    printed = {value.reference: f"{value.where}: {value.arm}" for value in evidence.comparison.published}
    group = "" if result.group == "all" else f" on {result.group}"
    return f"{evidence.label(result.a)} vs {printed.get(result.b, evidence.label(result.b))}{group}"
