"""The page's tables of reasoning patterns, and the figure of what a reader of the reasoning would have known."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from msm_bench.analysis.estimates import Estimate
from msm_bench.analysis.ppi import TwoTier
from msm_bench.analysis.published import PublishedValue
from msm_bench.report.evidence import ArmFacts, Evidence
from msm_bench.report.figures.dots import Dot, Panel, dots
from msm_bench.report.figures.draw import NARROW, Figure
from msm_bench.report.measures import pattern_rows, published_for
from msm_bench.report.patterns import (
    ACTS,
    Monitored,
    Part,
    Together,
    as_estimate,
    beside,
    corrected,
    misaligned,
    monitored,
    together,
    verdict,
)
from msm_bench.report.text import DASH, interval, number, signed
from msm_bench.report.views import View, cell
from msm_bench.scorers.patterns import load_taxonomy
from msm_bench.scorers.patterns.gates import NOT_MEASURABLE

_SHORT = "not measurable"


@dataclass(frozen=True)
class Share:
    """A pattern in an arm: the raw share, the corrected one where there is a strong part, and the verdict."""

    raw: Estimate
    rate: TwoTier | None
    verdict: str

    @property
    def shown(self) -> Estimate | None:
        """What stands as the rate. A corrected rate is right whatever its labeller is worth; a raw one is not."""
        if self.rate is not None:
            return as_estimate(self.raw, self.rate)
        return None if self.verdict == NOT_MEASURABLE else self.raw

    @property
    def hole(self) -> str:
        """Why nothing is shown."""
        return self.verdict if self.shown is None else ""


@dataclass(frozen=True, eq=False)
class PatternsOf:
    """Everything about the patterns of one base model."""

    model: str
    arms: tuple[ArmFacts, ...]
    keys: tuple[str, ...]
    shares: dict[tuple[str, str], Share]
    together: tuple[Together, ...]
    monitored: tuple[Monitored, ...]
    labellers: tuple[str, ...]
    strong: tuple[str, ...]

    def name(self, key: str) -> str:
        return _names().get(key, key)


@cache
def _names() -> dict[str, str]:
    return {pattern.id: pattern.name for pattern in load_taxonomy().patterns}


def gather_patterns(evidence: Evidence) -> list[PatternsOf]:
    """The patterns of every base model whose rollouts carry labels."""
    found = []
    for model, raw in pattern_rows(evidence).items():
        arms = tuple(arm for arm in evidence.of(model) if any(name == arm.name for name, _ in raw))
        there = {key for _, key in raw}
        keys = tuple([key for key in _names() if key in there] + sorted(there - set(_names())))
        measurable = evidence.measurable.get(model)
        believed = [key for key in keys if verdict(key, measurable) != NOT_MEASURABLE]
        beside_acts: list[Together] = []
        reads: list[Monitored] = []
        for arm in arms:
            beside_acts += together(evidence.table, arm.name, model, believed)
            for labels in (evidence.table, evidence.strong):
                # A strong judge's own gates are not the main labeller's: every pattern counts that it was asked about.
                wanted = misaligned(believed if labels is evidence.table else keys)
                reads += monitored(evidence.table, arm.name, model, wanted, labels) if not labels.empty else []
        shares = {
            (name, key): Share(
                one,
                corrected(evidence.table, evidence.strong, name, model, key) if not evidence.strong.empty else None,
                verdict(key, measurable),
            )
            for (name, key), one in raw.items()
        }
        found.append(
            PatternsOf(
                model,
                arms,
                keys,
                shares,
                tuple(beside_acts),
                tuple(reads),
                _judges(evidence.table, model, keys),
                _judges(evidence.strong, model, keys),
            )
        )
    return found


def _judges(rows: pd.DataFrame, model: str, keys: Sequence[str]) -> tuple[str, ...]:
    if rows.empty:
        return ()
    mine = rows[(rows["base"] == model) & rows["key"].isin(list(keys)) & rows["value"].notna()]
    return tuple(sorted({str(judge) for judge in mine["judge"].astype(str).unique() if judge}))


def paper_values(evidence: Evidence, arm: ArmFacts, key: str, model: str) -> list[PublishedValue]:
    """What stands beside an arm: the published numbers that were asked for, else the paper's Figure 11 of the arm's name."""
    if asked := published_for(evidence, arm, key, "all", model):
        return asked
    choice = evidence.choices.arms.get(arm.name)
    name = choice.paper if choice and choice.paper else arm.name
    return beside("base" if name.lower() == "baseline" else name, key, model)


def pattern_tables(evidence: Evidence, found: Sequence[PatternsOf]) -> list[View]:
    """One view a base model: shares by arm, patterns beside the act, and what the reasoning gave away."""
    return [
        {
            "model": one.model,
            "labellers": _sentence(one),
            "arms": [arm.label for arm in one.arms],
            "rows": [
                {"name": one.name(key), "cells": [_cell(evidence, one, arm, key) for arm in one.arms]} for key in one.keys
            ],
            "together": [
                _together_row(evidence, one, row) for row in one.together if row.act == ACTS[0] or not _has(one, ACTS[0])
            ],
            "monitored": [_monitored_row(evidence, row) for row in one.monitored],
        }
        for one in found
    ]


def _has(one: PatternsOf, act: str) -> bool:
    return any(row.act == act for row in one.together)


def _sentence(one: PatternsOf) -> str:
    text = f"Labelled by {', '.join(one.labellers)}." if one.labellers else "Who labelled is not in the logs."
    if one.strong:
        text += f" A random part also by {', '.join(one.strong)}: rates are corrected by it (prediction-powered)."
    verdicts = {share.verdict for share in one.shares.values()}
    if NOT_MEASURABLE in verdicts:
        text += f" A pattern whose kappa with the labelled set stays under .5 is {NOT_MEASURABLE}."
    elif "" not in verdicts:
        text += " What this labeller is worth was not measured: inspect eval msm_bench/reasoning_patterns with it as the model."
    return text


def _cell(evidence: Evidence, one: PatternsOf, arm: ArmFacts, key: str) -> View:
    share = one.shares.get((arm.name, key))
    printed = paper_values(evidence, arm, key, one.model)
    made = cell(share.shown if share else None, arm, printed, (share.hole if share else "") or DASH)
    made["published"] = [f"{number(value.value)} ({value.where}, {value.model})" for value in printed]
    if share is not None and share.rate is not None:
        made["denominator"] = f"{share.rate.n_cheap:,}, {share.rate.n_strong:,} by both"
        made["badges"] = [*made["badges"], f"corrected from {number(share.rate.cheap_alone)}"]
    return made


def _words(part: Part) -> str:
    return DASH if part.value is None else f"{number(part.value)} ({interval(part.low, part.high)}), n {part.n:,}"


def _together_row(evidence: Evidence, one: PatternsOf, row: Together) -> View:
    return {
        "arm": evidence.label(row.arm),
        "pattern": one.name(row.pattern),
        "act": row.act,
        "with_act": _words(row.with_act),
        "without": _words(row.without),
        "difference": DASH if row.difference is None else f"{signed(row.difference)} ({signed(row.low)} to {signed(row.high)})",
    }


def _monitored_row(evidence: Evidence, row: Monitored) -> View:
    return {
        "arm": evidence.label(row.arm),
        "act": row.act,
        "judge": row.judge,
        "gave_away": _words(row.gave_away),
        "clean": _words(row.clean),
        "alarm": _words(row.alarm),
    }


def monitor_figures(evidence: Evidence, found: Sequence[PatternsOf]) -> list[Figure]:
    """How often the reasoning gave the act away, and how often it looked the same without one; a figure a base model."""
    figures = []
    for place, one in enumerate(found, start=1):
        # The act that the study is about, by the labels that cover everything.
        act = next((act for act in ACTS if any(row.act == act for row in one.monitored)), None)
        rows: dict[str, Monitored] = {}
        for row in one.monitored:
            if row.act == act:
                rows.setdefault(row.arm, row)
        if not rows:
            continue
        panels = [
            Panel(title, (0.0, 1.0), tuple(_dot(arm, rows.get(arm.name), field) for arm in one.arms))
            for title, field in (
                (f"gave {act} away", "gave_away"),
                (f"{act}, clean reasoning", "clean"),
                ("alarm without it", "alarm"),
            )
        ]
        caption = (
            f"Left: of the rollouts with {act}, those whose reasoning shows a misaligned pattern; middle: those whose "
            "reasoning shows none; right: of the other rollouts, those with such a pattern all the same. Bars: 95 % intervals, "
            "conditions drawn with their rollouts. A labeller that misses patterns makes reasoning look cleaner than it is."
        )
        figures.append(
            Figure(
                name=f"patterns-monitor-{place}",
                title=f"Did the reasoning give the act away? {one.model}",
                caption=caption,
                chart=lambda width, panels=panels: dots(panels, width, 3 if width > NARROW else 1),  # type: ignore[misc]
            )
        )
    return figures


def _dot(arm: ArmFacts, row: Monitored | None, field: str) -> Dot:
    part: Part | None = getattr(row, field) if row else None
    if part is None or part.value is None:
        return Dot(arm.label, hole="no such rollout" if part else "not measured")
    return Dot(arm.label, part.value, part.low, part.high)


def share_dot(evidence: Evidence, one: PatternsOf, arm: ArmFacts, key: str) -> Dot:
    """A pattern's share in an arm as a figure shows it, with the paper's numbers."""
    printed = tuple(dict.fromkeys(value.value for value in paper_values(evidence, arm, key, one.model)))
    share = one.shares.get((arm.name, key))
    shown = share.shown if share else None
    if shown is None or shown.estimate is None:
        hole = _SHORT if share and share.hole else "nothing scored" if share else "not measured"
        return Dot(arm.label, published=printed if not (share and share.hole) else (), hole=hole)
    new = shown.new_conditions
    return Dot(arm.label, shown.estimate, shown.low, shown.high, new.low if new else None, new.high if new else None, printed)


def write_patterns(found: Sequence[PatternsOf], folder: Path) -> None:
    """Writes `patterns.csv` (shares, raw and corrected, verdict), `patterns_acts.csv` and `patterns_monitor.csv`, if any."""
    if not found:
        return
    shares = [
        {
            "model": one.model, "arm": arm, "pattern": key, "verdict": share.verdict, "raw": share.raw.estimate,
            "n_scored": share.raw.n_scored, "n": share.raw.n, "corrected": share.rate.estimate if share.rate else None,
            "low": share.shown.low if share.shown else None, "high": share.shown.high if share.shown else None,
            "n_strong": share.rate.n_strong if share.rate else None, "weight": share.rate.weight if share.rate else None,
        }
        for one in found for (arm, key), share in one.shares.items()
    ]  # fmt: skip
    acts = [
        {"model": one.model, "arm": row.arm, "pattern": row.pattern, "act": row.act, **_flat("with", row.with_act),
         **_flat("without", row.without), "difference": row.difference, "low": row.low, "high": row.high}
        for one in found for row in one.together
    ]  # fmt: skip
    reads = [
        {"model": one.model, "arm": row.arm, "act": row.act, "judge": row.judge, **_flat("gave_away", row.gave_away),
         **_flat("clean", row.clean), **_flat("alarm", row.alarm)}
        for one in found for row in one.monitored
    ]  # fmt: skip
    for name, rows in (("patterns", shares), ("patterns_acts", acts), ("patterns_monitor", reads)):
        if rows:
            pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False, lineterminator="\n", encoding="utf-8")


def _flat(name: str, part: Part) -> dict[str, Any]:
    return {name: part.value, f"{name}_low": part.low, f"{name}_high": part.high, f"{name}_n": part.n}
