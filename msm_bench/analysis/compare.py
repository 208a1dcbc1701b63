"""Logs in, estimates and contrasts out: what `msm-bench compare` prints and the report draws."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from msm_bench.analysis.contrasts import PRIMARY, ContrastResult, by_model, contrast_all, matching_models
from msm_bench.analysis.declared import declared, those_there
from msm_bench.analysis.estimates import Estimate, estimate_all
from msm_bench.analysis.published import PREFIX, PublishedValue, published
from msm_bench.analysis.sameness import differences, how_measured, treatments
from msm_bench.analysis.syntax import Contrast, parse_contrast
from msm_bench.analysis.table import read_table
from msm_bench.errors import RequestError

KEYS = (*PRIMARY, "margin", "executed", "harmful_action", "decided_given_acted")
"""Keys that contrasts are made on unless others are asked for."""

_BASELINES = ("base", "baseline")


class Comparison(BaseModel):
    """Everything that a page about some logs needs.

    `notes` says in words what was left out, and what was measured differently and compared all the same. `published` holds the
    numbers that were asked for with `against`.
    """

    model_config = ConfigDict(frozen=True)

    estimates: tuple[Estimate, ...]
    contrasts: tuple[ContrastResult, ...]
    published: tuple[PublishedValue, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One JSON document: `estimates`, `contrasts`, `published`, `notes`. Absent numbers are null."""
        return self.model_dump(mode="json")


def compare(
    paths: pd.DataFrame | Sequence[str | Path] | str | Path,
    against: pd.DataFrame | str | Path | None = None,
    contrasts: Sequence[str | Contrast] = (),
    keys: Sequence[str] = KEYS,
    insist: bool = False,
) -> Comparison:
    """Reads the logs and compares their arms.

    Args:
        paths: Logs or folders of logs, or their table where it was read already (see `table.read_table`).
        against: `published:NAME`, or a log, folder or table whose arms every arm in `paths` is set against.
        contrasts: Declared comparisons (see `syntax`). With none, and no `against`: those that the experiment declares whose
            folder this is, as far as their arms are there. Where it declares none, every arm is contrasted with the one that
            is called `base` or `baseline`, and where there is none two arms with each other.
        keys: Score keys to contrast.
        insist: Compare also what was not measured alike, with a label instead of a refusal.

    Raises:
        RequestError: No logs, a contrast that names what is not there, or arms that were not measured alike (unless `insist`).
    """
    table = paths if isinstance(paths, pd.DataFrame) else read_table(paths)
    notes = list(table.attrs["notes"])
    wanted = [parse_contrast(entry) if isinstance(entry, str) else entry for entry in contrasts]
    references: list[PublishedValue] = []
    if isinstance(against, pd.DataFrame) or (against is not None and not str(against).startswith(PREFIX)):
        other = against if isinstance(against, pd.DataFrame) else read_table(against)
        table, pairs, more = _beside(table, other)
        wanted += pairs
        notes += more
    elif against is not None:
        references = published(str(against))
    elif not wanted and not isinstance(paths, pd.DataFrame):
        every = declared([paths] if isinstance(paths, str | Path) else paths)
        wanted, missing = those_there(every, set(table["arm"].astype(str)))
        notes += [f"Declared: {text}." for text in missing]
    if not wanted and not references:
        wanted = _default(table)
    how = how_measured(table)
    notes += _unlike(how, wanted, keys, insist)
    results = [_labelled(result, how) for result in contrast_all(table, wanted, keys)]
    estimates = estimate_all(table)
    results += _against_published(estimates, references)
    return Comparison(
        estimates=tuple(estimates),
        contrasts=tuple(results),
        published=tuple(references),
        notes=tuple(dict.fromkeys([*notes, *treatments(how, _arms(how))])),
    )


def _beside(table: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, list[Contrast], list[str]]:
    """Both tables in one, a contrast for every pair of arms, and notes. Arms of equal names get "(against)" in the second."""
    mine = _arms(table)
    notes = list(other.attrs["notes"])
    names = {name: f"{name} (against)" if name in mine else name for name in _arms(other)}
    if renamed := [name for name, new in names.items() if new != name]:
        notes.append(f"Arms of the same name on both sides: {', '.join(renamed)}; those of the second are called '(against)'.")
    other = other.assign(arm=other["arm"].astype(str).map(names), rollout=other["rollout"] + int(table["rollout"].max()) + 1)
    both = pd.concat([table, other], ignore_index=True)
    for name in both.columns.difference(["value", "epoch", "rollout", "sample"]):
        both[name] = both[name].astype("category")
    return both, [Contrast(a=a, b=b) for a, b in itertools.product(mine, names.values())], notes


def _arms(table: pd.DataFrame) -> list[str]:
    return sorted(map(str, table["arm"].unique()))


def _default(table: pd.DataFrame) -> list[Contrast]:
    arms = _arms(table)
    baseline = next((arm for name in _BASELINES for arm in arms if arm.lower() == name), None)
    if baseline is not None:
        return [Contrast(a=arm, b=baseline) for arm in arms if arm != baseline]
    return [Contrast(a=arms[0], b=arms[1])] if len(arms) == 2 and _share_task(table, arms) else []


def _share_task(table: pd.DataFrame, arms: list[str]) -> bool:
    return bool((table.groupby("task", observed=True)["arm"].nunique() == len(arms)).any())


def _unlike(how: pd.DataFrame, wanted: Sequence[Contrast], keys: Sequence[str], insist: bool) -> list[str]:
    """Notes on what was not measured alike: within one table of estimates, and so in every contrast.

    Raises:
        RequestError: Something was not, a contrast wants it, and nobody insists.
    """
    notes = []
    for task, key in how[["task", "key"]].drop_duplicates().itertuples(index=False):
        for contrast in wanted if key in keys else ():
            for rows in _contrasted(how, contrast):
                for problem in differences(rows, (contrast.a, contrast.b), task, key):
                    if not insist:
                        raise RequestError(
                            f"'{contrast.a}' and '{contrast.b}' were not measured alike on {task} ({key}): {problem}.",
                            "Measure them alike, or insist (then the page says so).",
                        )
        if key in keys:
            notes += [f"{task} ({key}) was not measured alike in all arms: {p}." for p in differences(how, None, task, key)]
    return notes


def _contrasted(how: pd.DataFrame, contrast: Contrast) -> list[pd.DataFrame]:
    """The ways in which what a contrast sets side by side was measured: its model's alone, and each shared model's apart."""
    rows = how[how["base"].isin(matching_models(how["base"], contrast.within))] if contrast.within else how
    return by_model(rows, contrast)


def _labelled(result: ContrastResult, how: pd.DataFrame) -> ContrastResult:
    arms = (result.a, result.b)
    mine = how[how["base"].isin(matching_models(how["base"], result.model))] if result.model else how
    labels = (*differences(mine, arms, result.task, result.key), *treatments(mine, arms))
    return result.model_copy(update={"labels": labels})


def _against_published(estimates: Sequence[Estimate], references: Sequence[PublishedValue]) -> list[ContrastResult]:
    """Own estimates minus published numbers on the same task, key and group.

    A printed number has no standard error, so the interval is that of the own estimate alone and there is no p-value.
    """
    results = []
    for mine, other in itertools.product(estimates, references):
        # Patterns are a scorer on the transcripts of other tasks, so their keys tell where they belong.
        same_task = other.task in (mine.task, "reasoning_patterns")
        if not same_task or (mine.key, mine.group) != (other.key, other.group):
            continue
        if mine.estimate is None or mine.low is None or mine.high is None:
            continue
        results.append(
            ContrastResult(
                a=mine.arm,
                b=other.reference,
                task=mine.task,
                key=mine.key,
                group=mine.group,
                model=mine.model,
                difference=mine.estimate - other.value,
                low=mine.low - other.value,
                high=mine.high - other.value,
                interval=f"{mine.interval}; the published number is taken as exact",
                ratio=mine.estimate / other.value if other.value > 0 and mine.key != "rating" else None,
                pairs=0,
                seeds=mine.seeds,
                blocked="a published number has no standard error",
                verdict=f"beside {other.where}: {other.value:g}",
                labels=(f"published: {other.metric}; judge {other.judge}; {other.seeds} seeds", *other.notes),
            )
        )
    if references and not results:
        theirs = sorted({f"{value.task} {value.key} on {value.group}" for value in references})
        more = f" and {len(theirs) - 6} more" if len(theirs) > 6 else ""
        raise RequestError(
            "None of the published numbers is of a task, key and group that the logs have.",
            f"They are of {', '.join(theirs[:6])}{more}; measure one of them, or name another table.",
        )
    return results
