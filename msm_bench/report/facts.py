"""What the pages say about how results came about: arms, recipes, judges, cost, deviations, logs."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from msm_bench.analysis.cells import base_key
from msm_bench.analysis.estimates import UNSCORED_LIMIT
from msm_bench.analysis.recipes import in_words
from msm_bench.report.evidence import ArmFacts, Evidence
from msm_bench.report.lineage import StageFacts
from msm_bench.report.measures import Section, scorers
from msm_bench.report.text import DASH, count, interval, number
from msm_bench.report.views import View, log_anchor


def arm_views(evidence: Evidence) -> list[View]:
    """What each arm is, in words."""
    return [
        {
            "name": arm.name,
            "label": arm.label,
            "number": arm.number,
            "hole": "declared, no log" if arm.missing else "",
            "identity": _identity(arm),
            "stages": [_stage(stage) for lineage in arm.lineages for stage in lineage.stages],
        }
        for arm in evidence.arms
    ]


def _identity(arm: ArmFacts) -> list[str]:
    headers = [log.header for log in arm.logs]
    lines = [f"base model: {', '.join(arm.models)}"]
    series = list(dict.fromkeys(lineage.series for lineage in arm.lineages if lineage.stages))
    lines.append(f"training: {'; '.join(series)}" if series else "training: none that a manifest tells of")
    if seeds := sorted({header.seed for header in headers if header.seed is not None}):
        lines.append(f"seeds: {', '.join(seeds)}")
    elif series:
        lines.append("seeds: none named")
    if recipes := sorted({in_words(header.recipe) for header in headers if header.recipe}):
        lines.append(f"recipe: {'; '.join(recipes)}")
    if specs := sorted({header.spec for header in headers if header.spec}):
        lines.append(f"in its prompt: the spec {', '.join(specs)}")
    lines += [f"{header.task}: {_settings(header.settings)}" for header in {h.task: h for h in headers}.values()]
    lines += [problem for problem in dict.fromkeys(lineage.problem for lineage in arm.lineages) if problem]
    return lines


def _settings(text: str) -> str:
    """The settings of a measurement in words: `temperature 0.7; scratchpad True`."""
    parts = [f"{name} {value}" for inner in json.loads(text).values() for name, value in sorted(inner.items())]
    return "; ".join(parts) or "every setting at its default"


def _stage(stage: StageFacts) -> View:
    return {
        "what": stage.what,
        "corpora": "; ".join(stage.corpora),
        "rows": count(stage.rows),
        "tokens": count(stage.tokens),
        "loss_tokens": count(stage.loss_tokens),
        "updates": count(stage.updates),
        "seed": str(stage.seed),
        "recipe": stage.recipe,
        "id": stage.id,
    }


def _stages(evidence: Evidence) -> list[StageFacts]:
    found = {stage.id: stage for arm in evidence.arms for lineage in arm.lineages for stage in lineage.stages}
    return list(found.values())


def recipe_views(evidence: Evidence) -> list[View]:
    """What was chosen, once for every trainer and set of values; arms that share a recipe are not repeated."""
    found: dict[tuple[str, str, tuple[Any, ...]], View] = {}
    for stage in _stages(evidence):
        key = (stage.trainer, stage.recipe, tuple(sorted(stage.settings.items())))
        found.setdefault(key, {"name": f"{stage.trainer}: {stage.recipe}", "settings": stage.chosen})
    return list(found.values())


def judge_views(evidence: Evidence, sections: Sequence[Section]) -> list[View]:
    """Who judged each arm's headline, and what has no score."""
    table, rows = evidence.table, []
    for section in sections:
        of_task = table[(table["task"] == section.task) & (table["key"] == base_key(section.headline))]
        for row in section.rows:
            estimate = row.estimates.get(section.headline)
            if estimate is None:
                continue
            judges = of_task.loc[of_task["arm"] == row.arm.name, "judge"].astype(str).unique()
            reasons = ", ".join(f"{reason}: {times:,}" for reason, times in estimate.unscored.items())
            rows.append(
                {
                    "label": row.arm.label,
                    "task": section.task,
                    "key": section.headline,
                    "judges": sorted(judge for judge in judges if judge),
                    "scored": f"{estimate.n_scored:,} of {estimate.n:,}",
                    "unscored": reasons or "none",
                    "over": "unscored" in estimate.warnings,
                }
            )
    return rows


def agreement_lines(evidence: Evidence) -> list[str]:
    """How far two judgements of the same rollouts agree, in words."""
    lines = []
    for one in evidence.agreements:
        kappa = f"kappa {number(one.kappa)}" + (f" ({interval(one.low, one.high)})" if one.low is not None else "")
        shared = f"{one.n:,} rollouts that both judged ({one.only_a:,} and {one.only_b:,} that one judged)"
        rates = f"means {number(one.rate_a)} and {number(one.rate_b)}"
        lines.append(
            f"{one.key}: {one.a} and {one.b} on {shared}: agreement {number(one.agreement)}, {kappa}, "
            f"Krippendorff's alpha {number(one.alpha)}, {rates}."
        )
    return lines


def cost_views(evidence: Evidence) -> list[View]:
    """What each arm cost."""
    rows = []
    for arm in evidence.arms:
        spent = arm.spent
        if spent is None:
            continue
        sides = (spent.subject, spent.judges)
        tokens = [count(value) for side in sides for value in ((side.read, side.written) if side else (None, None))]
        seconds = [stage.seconds for lineage in arm.lineages for stage in lineage.stages]
        trained = sum(each for each in seconds if each is not None) if seconds and None not in seconds else None
        rows.append(
            {
                "label": arm.label,
                "tokens": tokens,
                "dollars": DASH if spent.dollars is None else f"${spent.dollars:,.2f}",
                "unpriced": ", ".join(spent.unpriced),
                "hours": DASH if spent.hours is None else f"{spent.hours:,.2f} h",
                "training": DASH if trained is None else f"{trained / 3600:,.2f} h",
            }
        )
    return rows


def deviations(evidence: Evidence, sections: Sequence[Section]) -> list[str]:
    """What a reader must know before the numbers: what somebody declared, and what logs and manifests show."""
    found = [*evidence.choices.deviations]
    found += [f"{arm.label}: declared, no log." for arm in evidence.arms if arm.missing]
    found += [
        f"{row.arm.label}: not run on {section.task} of {section.model}."
        for section in sections
        for row in section.rows
        if row.hole and not row.arm.missing
    ]
    found += [f"Declared contrast that cannot be made: {text}." for text in evidence.missing_contrasts]
    found += [
        _log_state(log) for arm in evidence.arms for log in arm.logs if log.header.status != "success" or log.done < log.planned
    ]
    found += _warned(sections)
    for arm in evidence.arms:
        for lineage in arm.lineages:
            found += [f"{arm.label}: {lineage.problem}."] if lineage.problem else []
            found += [f"{arm.label}, {stage.what}: {note}" for stage in lineage.stages for note in stage.notes]
    found += [
        f"{task} ({key}) was scored by {', '.join(names)}: the tables show {names[0]}, the files hold all."
        for (task, key), names in scorers(evidence).items()
        if len(names) > 1
    ]
    found += _recipes_apart(evidence)
    found += _other_judges(evidence)
    found += [f"{note}" for note in evidence.comparison.notes]
    return list(dict.fromkeys(text if text.endswith((".", "!", "?")) else f"{text}." for text in found))


def _log_state(log: Any) -> str:
    name = log.link.rsplit("/", 1)[-1]
    return f"{name} ({log.arm}): status {log.header.status}, {log.done:,} of {log.planned:,} rollouts."


def _warned(sections: Sequence[Section]) -> list[str]:
    said = {
        "unscored": f"more than {UNSCORED_LIMIT:.0%} of its rollouts have no score, so it cannot be called better",
        "hardly_acts": "it hardly acts, so its rate of harm says nothing about its values",
        "one_seed": "one training seed, so its interval says nothing about other seeds",
    }
    found = []
    for section in sections:
        for warning, words in said.items():
            labels = [
                row.arm.label
                for row in section.rows
                if (one := row.estimates.get(section.headline)) is not None
                and warning in one.warnings
                and (warning != "one_seed" or row.arm.seeded)
            ]
            if labels:
                found.append(f"{section.task} ({section.headline}) of {section.model}: {', '.join(labels)}: {words}.")
    return found


def _recipes_apart(evidence: Evidence) -> list[str]:
    """Settings in which stages of one trainer differ, also where their recipes have the same name."""
    found = []
    by_trainer: dict[str, list[StageFacts]] = {}
    for stage in _stages(evidence):
        by_trainer.setdefault(stage.trainer, []).append(stage)
    for trainer, stages in sorted(by_trainer.items()):
        for name in sorted({name for stage in stages for name in stage.settings}):
            values = sorted({stage.settings.get(name, "not there") for stage in stages})
            if len(values) > 1:
                found.append(f"Stages of {trainer} differ in {name}: {' | '.join(values)}.")
    return found


def _other_judges(evidence: Evidence) -> list[str]:
    """The published numbers' judges beside ours."""
    found = []
    for task in sorted({value.task for value in evidence.comparison.published}):
        theirs = sorted({value.judge for value in evidence.comparison.published if value.task == task})
        rows = evidence.table[evidence.table["task"] == task]
        ours = sorted({judge.split(" ")[0] for judge in rows["judge"].astype(str).unique() if judge})
        if ours:
            found.append(f"{task}: judged here by {', '.join(ours)}; the published numbers by {', '.join(theirs)}.")
    return found


def log_views(evidence: Evidence) -> list[View]:
    """Every log, with the anchor that numbers link to at the first of each arm and task."""
    rows, seen = [], set()
    for arm in evidence.arms:
        for log in sorted(arm.logs, key=lambda log: (log.header.task, log.link)):
            anchor = log_anchor(arm, log.header.task)
            rows.append(
                {
                    "anchor": "" if anchor in seen else anchor,
                    "label": arm.label,
                    "task": log.header.task,
                    "version": log.header.task_version,
                    "seed": log.header.seed or DASH,
                    "rollouts": f"{log.done:,} of {log.planned:,}",
                    "status": "" if log.header.status == "success" else log.header.status,
                    "link": log.link,
                    "href": quote(log.link),
                    "sha256": log.sha256[:12],
                }
            )
            seen.add(anchor)
    return rows
