"""What two arms must share before their numbers may stand side by side: metric, judge, prompt, recipe, settings."""

import json
from collections.abc import Iterable

import pandas as pd

from msm_bench.analysis.cells import base_key
from msm_bench.analysis.recipes import conflicts

_WAYS = ("arm", "base", "task", "key", "scorer", "version", "condition", "judge", "prompt", "recipe", "spec", "settings")


def how_measured(table: pd.DataFrame) -> pd.DataFrame:
    """The few distinct ways in which the rows of a large table were measured; all that the checks below need of it."""
    ways = table[[*_WAYS]].assign(scored=table["value"].notna())
    return ways.drop_duplicates(ignore_index=True).astype({name: object for name in _WAYS})


def differences(how: pd.DataFrame, arms: Iterable[str] | None, task: str, key: str) -> list[str]:
    """From `how_measured`: why the named arms' (None: all arms') values of a key are not measured alike; empty when they are.

    Judges and prompts are looked at condition by condition, since each scenario has its own. Recipes are compared by hash,
    stage by stage (see `recipes`); an arm without a recipe (an untrained model) goes with every recipe. Empty entries (nothing
    known) are no difference. A spec in the prompt is what makes an in-context arm; it is named by `treatments`, not refused.
    """
    rows = how[(how["task"] == task) & (how["key"] == base_key(key))]
    rows = rows if arms is None else rows[rows["arm"].isin(list(arms))]
    found = []
    metrics = _distinct(rows["scorer"].astype(str) + " version " + rows["version"].astype(str))
    if len(metrics) > 1:
        found.append(f"metric: {' | '.join(metrics)}")
    scored = rows[rows["scored"]]
    for aspect in ("judge", "prompt"):
        known = scored[scored[aspect].astype(object) != ""]
        seen = known[["condition", aspect]].astype(object).drop_duplicates()
        twice = seen["condition"].value_counts()
        shared = twice[twice > 1].index
        if len(shared):
            names = _distinct(seen.loc[seen["condition"].isin(shared), aspect])
            found.append(f"{aspect}: {' | '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    found += [f"recipe: {conflict}" for conflict in conflicts(_distinct(rows["recipe"]))]
    settings = _distinct(rows["settings"])
    if len(settings) > 1:
        found.append(f"settings: {_changed(settings)}")
    return found


def treatments(how: pd.DataFrame, arms: Iterable[str]) -> list[str]:
    """What was done to the arms on purpose and stands in their prompts: "ARM reads the spec S in its prompt"."""
    rows = how[how["arm"].isin(list(arms))][["arm", "spec"]].astype(str).drop_duplicates()
    return [f"{arm} reads the spec {spec} in its prompt" for arm, spec in sorted(map(tuple, rows.to_numpy())) if spec]


def _distinct(values: pd.Series) -> list[str]:
    return sorted({str(value) for value in values.astype(object).unique() if str(value)})


def _changed(settings: list[str]) -> str:
    """The settings that are not the same everywhere, with their values."""
    flat = [
        {(part, name): value for part, inner in json.loads(text).items() for name, value in inner.items()} for text in settings
    ]
    names = sorted({name for one in flat for name in one})
    changed = []
    for part, name in names:
        values = sorted({json.dumps(one.get((part, name))) for one in flat})
        if len(values) > 1:
            changed.append(f"{name} = {' | '.join(values)}")
    return "; ".join(changed)
