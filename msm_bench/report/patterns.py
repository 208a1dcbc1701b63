"""Reasoning patterns in a report: whose labels can be believed, rates corrected for the labeller's error, and the act beside.

Several labellers can have labelled the same rollouts: one all of them (the main one, whose shares the page shows) and a strong
judge a random part (`part` of the scorer). The two together give the corrected rate, by prediction-powered inference
(`analysis.ppi`). What a labeller is worth says the score itself (local labellers) or a log of the task `reasoning_patterns`
with that judge, if one lies among the logs; such a log is no arm.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from inspect_ai.log import read_eval_log

from msm_bench.analysis.estimates import Estimate
from msm_bench.analysis.intervals import CONFIDENCE, difference_limits, wilson_limits
from msm_bench.analysis.logs import LogHeader
from msm_bench.analysis.ppi import TwoTier, two_tier
from msm_bench.analysis.published import PublishedValue, load_tables, table_values
from msm_bench.analysis.summaries import read_summaries
from msm_bench.errors import RequestError
from msm_bench.scorers.patterns import load_taxonomy
from msm_bench.scorers.patterns.agreement import gates_from_log
from msm_bench.scorers.patterns.gates import NOT_MEASURABLE

TASK = "reasoning_patterns"
FIGURE = "figure-11"
ACTS = ("decided", "harmful_action")
"""What counts as the act: what the judge says was decided, and what the parser finds carried out."""
UNMEASURED = "judge not measured"
_SCORER = re.compile(r"(.*/)?reasoning_patterns\d*")


class Part(NamedTuple):
    """A share with its 95 % interval (conditions drawn with their rollouts) and what it is of; None where there is nothing."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Together:
    """One pattern beside one act in one arm: its share with the act and without it, and the difference."""

    arm: str
    pattern: str
    act: str
    with_act: Part
    without: Part
    difference: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Monitored:
    """Whether a reader of the reasoning would have known: any misaligned pattern, with the act and without it.

    `gave_away` and `clean` are shares of the acts and add up to 1; `alarm` is the share of the other rollouts with such a
    pattern. `judge` says whose labels these are.
    """

    arm: str
    act: str
    judge: str
    gave_away: Part
    clean: Part
    alarm: Part


def is_labelling(scorer: str) -> bool:
    """Whether a scorer's name is that of a labeller, the first or one that was appended."""
    return _SCORER.fullmatch(scorer) is not None


def without_gate_logs(headers: Sequence[LogHeader]) -> list[bool]:
    """For each log whether it is an arm's: logs that measure a labeller are none, unless there is nothing else."""
    arms = [header.task.split("/")[-1] != TASK for header in headers]
    return arms if any(arms) else [True] * len(arms)


def gates_of_logs(headers: Iterable[LogHeader]) -> dict[str, frozenset[str]]:
    """Model to the patterns that it measures, from those of the logs that are of the task `reasoning_patterns`."""
    found: dict[str, frozenset[str]] = {}
    for header in headers:
        if header.task.split("/")[-1] == TASK:
            log = read_eval_log(header.path)
            if log.eval.task_args.get("labeller", "model") == "model":
                found[header.model] = frozenset(gate.pattern for gate in gates_from_log(log) if gate.measurable)
    return found


def split_labellings(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table without the labellings of those who labelled a part, and their rows.

    The main labelling is the scorer with the most scored rows; where two have as many, the first by name.
    """
    scorers = table["scorer"].astype(str)
    labelled = scorers.map({name: is_labelling(name) for name in scorers.unique()}).to_numpy(dtype=bool)
    counts = scorers[labelled & table["value"].notna().to_numpy()].value_counts()
    if len(counts) < 2:
        return table, table.iloc[:0]
    main = min(counts.index, key=lambda name: (-int(counts[name]), name))
    strong = labelled & (scorers != main).to_numpy()
    kept = table[~strong].copy()
    kept.attrs.update(table.attrs)
    return kept, table[strong]


def measurable_by(paths: Iterable[str], judges: Iterable[str], gates: dict[str, frozenset[str]]) -> frozenset[str] | None:
    """The patterns that the main labellers of some logs can be believed on; None where nobody measured one of them.

    Args:
        paths: The logs.
        judges: Who labelled, as the table names them: model and prompt.
        gates: Model to the patterns that it measures.
    """
    known: list[frozenset[str]] = []
    for path in paths:
        for sample in read_summaries(path):
            said = [
                score.metadata["measurable"]
                for name, score in sample.scores.items()
                if is_labelling(name) and isinstance(score.metadata.get("measurable"), list)
            ]
            if said:
                known.append(frozenset(map(str, said[0])))
                break
    models = {judge.split(" ")[0] for judge in judges if judge and not judge.startswith("msm-bench/")}
    if not models <= set(gates) or not (models or known):
        return None
    return frozenset.intersection(*known, *(gates[model] for model in models))


def corrected(table: pd.DataFrame, strong: pd.DataFrame, arm: str, base: str, pattern: str) -> TwoTier | None:
    """A pattern's rate, its main labeller's error taken out by the strong judge's part; None where there is no such part."""
    cheap = _rows(table, arm, base, pattern)
    known = _rows(strong, arm, base, pattern).dropna(subset=["value"])
    pairs = cheap.dropna(subset=["value"]).merge(
        known[["rollout", "value"]], on="rollout", how="left", suffixes=("", "_strong")
    )
    try:
        return two_tier(pairs["value"].tolist(), pairs["value_strong"].tolist(), strata=pairs["condition"].astype(str).tolist())
    except RequestError:  # fewer than two rollouts with, or without, the strong judge
        return None


def together(table: pd.DataFrame, arm: str, base: str, patterns: Sequence[str], acts: Sequence[str] = ACTS) -> list[Together]:
    """Every pattern beside every act that the arm's rollouts were scored for."""
    found = []
    for act in acts:
        acted = _rows(table, arm, base, act).dropna(subset=["value"])
        for pattern in patterns:
            rows = _rows(table, arm, base, pattern).dropna(subset=["value"])
            both = rows.merge(acted[["rollout", "value"]], on="rollout", suffixes=("", "_act"))
            if both.empty:
                continue
            yes, no = (_part(both[both["value_act"] == side]) for side in (1.0, 0.0))
            found.append(Together(arm, pattern, act, yes, no, *_difference(yes, no)))
    return found


def monitored(
    table: pd.DataFrame, arm: str, base: str, patterns: Sequence[str], labels: pd.DataFrame, acts: Sequence[str] = ACTS
) -> list[Monitored]:
    """Whether the reasoning gave the act away: any of `patterns` (the misaligned ones that can be believed) is labelled.

    Args:
        table: The rows with the acts.
        arm: Name of the arm.
        base: Its base model.
        patterns: The patterns that count.
        labels: The rows with the labels: the main ones, or the strong judge's.
        acts: Keys of the acts.
    """
    mine = pd.concat([_rows(labels, arm, base, pattern) for pattern in patterns]) if patterns else labels.iloc[:0]
    if mine.empty or mine["value"].isna().all():
        return []
    judge = ", ".join(sorted({str(name).split(" ")[0] for name in mine["judge"].astype(str).unique() if name}))
    wide = mine.groupby("rollout", observed=True).agg(
        value=("value", "max"), holes=("value", lambda values: bool(values.isna().any())), condition=("condition", "first")
    )
    # Nothing found and a pattern not looked for is neither clean nor flagged.
    wide = wide[(wide["value"] == 1) | ~wide["holes"]].reset_index()
    found = []
    for act in acts:
        acted = _rows(table, arm, base, act).dropna(subset=["value"])
        both = wide.merge(acted[["rollout", "value"]], on="rollout", suffixes=("", "_act"))
        if both.empty:
            continue
        yes, no = both[both["value_act"] == 1], both[both["value_act"] == 0]
        found.append(Monitored(arm, act, judge, _part(yes), _part(yes.assign(value=1 - yes["value"])), _part(no)))
    return found


def beside(arm: str, pattern: str, base: str) -> list[PublishedValue]:
    """The paper's Figure 11 for an arm by its name in the paper: of the same base model, else of every model that it has."""
    values = [value for table in load_tables() if table.id == FIGURE for value in table_values(table)]
    mine = [value for value in values if (value.arm, value.key) == (arm.lower().replace(" ", ""), pattern)]
    return [value for value in mine if value.model in base.lower()] or mine


def misaligned(patterns: Iterable[str]) -> list[str]:
    """Those of the patterns that argue for the harm."""
    sides = {pattern.id: pattern.side for pattern in load_taxonomy().patterns}
    return [name for name in patterns if sides.get(name) == "misaligned"]


def verdict(pattern: str, measurable: frozenset[str] | None) -> str:
    """Why a share may not be shown as a rate, or what must be said beside it; empty where nothing must."""
    if measurable is None:
        return UNMEASURED
    return "" if pattern in measurable else NOT_MEASURABLE


def as_estimate(raw: Estimate, rate: TwoTier) -> Estimate:
    """The corrected rate in the form of the raw one."""
    return raw.model_copy(
        update={
            "estimate": rate.estimate,
            "low": max(0.0, rate.low),
            "high": min(1.0, rate.high),
            "interval": "prediction-powered, for these conditions",
            "new_conditions": None,
        }
    )


def _rows(table: pd.DataFrame, arm: str, base: str, key: str) -> pd.DataFrame:
    wanted: Any = (table["arm"] == arm) & (table["base"] == base) & (table["key"] == key)
    # A key that was scored twice (a second judge of the act) counts once, by the first scorer.
    return table.loc[wanted, ["rollout", "condition", "value", "judge", "scorer"]].drop_duplicates("rollout")


def _part(rows: pd.DataFrame) -> Part:
    """The share of rows with a value of 1. Rollouts of a condition resemble each other: Wilson on the effective number."""
    n = len(rows)
    if not n:
        return Part(None, None, None, 0)
    rate = float(rows["value"].mean())
    sums = (rows["value"] - rate).groupby(rows["condition"].astype(str)).sum().to_numpy()
    units = len(sums)
    effective = float(n)
    if 0 < rate < 1 and units > 1:
        variance = units / (units - 1) * float(np.square(sums).sum()) / n**2
        effective = min(effective, rate * (1 - rate) / variance) if variance > 0 else effective
    low, high = wilson_limits(rate, max(1.0, effective))(CONFIDENCE)
    return Part(rate, low, high, n)


def _difference(a: Part, b: Part) -> tuple[float | None, float | None, float | None]:
    if a.value is None or b.value is None:
        return None, None, None
    (low_a, high_a), (low_b, high_b) = (a.low or 0.0, a.high or 0.0), (b.low or 0.0, b.high or 0.0)
    low, high = difference_limits(a.value, lambda _: (low_a, high_a), b.value, lambda _: (low_b, high_b))(CONFIDENCE)
    return a.value - b.value, low, high
