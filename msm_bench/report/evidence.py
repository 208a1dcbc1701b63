"""Everything a report is made from, read once: the table, the comparison, and the facts of every arm and log."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from inspect_ai.log import EvalLog

from msm_bench.analysis.agreement import Agreement, agreement
from msm_bench.analysis.compare import Comparison, compare
from msm_bench.analysis.contrasts import PRIMARY
from msm_bench.analysis.declared import declared, those_there
from msm_bench.analysis.logs import LogHeader, describe, find_logs
from msm_bench.analysis.published import PREFIX, published
from msm_bench.analysis.sameness import differences, how_measured
from msm_bench.analysis.syntax import Contrast, parse_contrast
from msm_bench.analysis.table import table_of
from msm_bench.artefacts import sha256_of_file
from msm_bench.corpus.pipeline.prices import load_prices
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.report.choices import Choices
from msm_bench.report.lineage import Lineage, trace_model
from msm_bench.report.patterns import gates_of_logs, is_labelling, measurable_by, split_labellings, without_gate_logs
from msm_bench.report.spending import Spent, spent


@dataclass(frozen=True)
class LogFacts:
    """One log: its header, its hash, where it lies as seen from the report, and how far it came."""

    header: LogHeader
    arm: str
    sha256: str
    link: str
    done: int
    planned: int


@dataclass(frozen=True)
class ArmFacts:
    """One arm. `missing` when it was declared and no log has it; then there are no logs, lineages or spending."""

    name: str
    label: str
    number: int
    logs: tuple[LogFacts, ...] = ()
    traced: tuple[tuple[str, Lineage], ...] = ()
    """Each of its models, as the logs name it, with the stages behind it."""
    spent: Spent | None = None

    @property
    def missing(self) -> bool:
        return not self.logs

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """The stages behind each of its models (one a seed and base model)."""
        return tuple(lineage for _, lineage in self.traced)

    def lineages_on(self, base: str) -> tuple[Lineage, ...]:
        """Those of its models that were made from one base model."""
        models = {log.header.model for log in self.logs if log.header.base == base}
        return tuple(lineage for model, lineage in self.traced if model in models)

    @property
    def seeded(self) -> bool:
        """Whether a training seed is known; an untrained model has none."""
        return any(log.header.seed is not None for log in self.logs)

    @property
    def models(self) -> tuple[str, ...]:
        """The base models that it was made from."""
        return tuple(sorted({log.header.base for log in self.logs}))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a report is made from. `table` holds the rows of the reported logs (not of those they are set against)."""

    choices: Choices
    table: pd.DataFrame
    comparison: Comparison
    arms: tuple[ArmFacts, ...]
    missing_contrasts: tuple[str, ...]
    declared: frozenset[tuple[str, str, str]]
    """(a, b, group) of the contrasts in the file of choices."""
    labels: tuple[str, ...]
    """What was measured differently and stands in one table because somebody insisted."""
    agreements: tuple[Agreement, ...] = ()
    """How far two scorers agree, for every primary key that the same rollouts have from both."""
    strong: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Rows of pattern labels from those who labelled a part beside the main labeller (see `patterns`)."""
    measurable: dict[str, frozenset[str] | None] = field(default_factory=dict)
    """Base model to the patterns that its labeller can be believed on; None where nobody measured the labeller."""

    def label(self, arm: str) -> str:
        """What an arm is called on the page."""
        return next((facts.label for facts in self.arms if facts.name == arm), arm)

    def of(self, model: str) -> tuple[ArmFacts, ...]:
        """The arms of a base model, in the report's order, with those that no log has."""
        return tuple(arm for arm in self.arms if arm.missing or model in arm.models)


def gather(
    paths: Sequence[str | Path], out: Path, choices: Choices, against: str | None, contrasts: Sequence[str], insist: bool
) -> Evidence:
    """Reads logs and manifests.

    Raises:
        RequestError: No logs, a contrast asked for that names what is not there, or a table of what was not measured alike
            (unless `insist`).
    """
    read, notes = _read(paths)
    every = [one.header for one in read]
    read = [one for one, is_arm in zip(read, without_gate_logs(every), strict=True) if is_arm]
    table, strong = split_labellings(table_of([one.header for one in read], notes))
    measurable = _measurable(read, table, every)
    present = sorted(set(table["arm"].astype(str)))
    other: pd.DataFrame | str | None = against
    if against is not None and not against.startswith(PREFIX):
        beside, notes = _read([against])
        other = table_of([one.header for one in beside], notes)
        read += [replace(one, arm=_renamed(one.arm, present)) for one in beside]
    everywhere = {one.arm for one in read} | set(present)
    _check_spelling(choices.contrasts, {*everywhere, *choices.arms})
    _check_spelling(contrasts, everywhere)
    by_experiment = () if choices.contrasts or contrasts else declared(paths)
    before, missing = those_there([*choices.contrasts, *by_experiment], everywhere)
    asked = [parse_contrast(text) for text in contrasts]
    labels = _check_sameness(table, insist)
    comparison = _compare(table, other, [*before, *asked], insist)
    return Evidence(
        choices=choices,
        table=table,
        comparison=comparison,
        arms=_arms(read, out, choices, everywhere),
        missing_contrasts=tuple(missing),
        declared=frozenset((contrast.a, contrast.b, contrast.group) for contrast in before),
        labels=tuple(labels),
        agreements=tuple(_agreements(table)),
        strong=strong,
        measurable=measurable,
    )


@dataclass(frozen=True)
class _Read:
    """One log as it was read, and the arm that it belongs to."""

    log: EvalLog
    header: LogHeader
    arm: str


def _read(paths: Sequence[str | Path]) -> tuple[list[_Read], list[str]]:
    """The headers of the logs, each read once, and notes on those left out."""
    logs, notes = find_logs(paths)
    headers = [describe(log) for log in logs]
    return [_Read(log, header, header.arm) for log, header in zip(logs, headers, strict=True)], notes


def _compare(
    table: pd.DataFrame, against: pd.DataFrame | str | None, contrasts: Sequence[Contrast], insist: bool
) -> Comparison:
    """The comparison. Published numbers that no estimate can be contrasted with, but a figure can show, stand in it too."""
    if isinstance(against, str):
        references = published(against)
        measured = set(zip(table["task"].astype(str), table["key"].astype(str), strict=True))
        groups = {"all", *table["group"].astype(str).unique()}
        if not any((one.task, one.key) in measured and one.group in groups for one in references):
            keys, conditions = {key for _, key in measured}, set(table["condition"].astype(str).unique())
            if any(one.key in keys and (one.group == "all" or one.group in conditions) for one in references):
                without = compare(table, contrasts=contrasts, insist=insist)
                return without.model_copy(update={"published": tuple(references)})
    return compare(table, against=against, contrasts=contrasts, insist=insist)


def _renamed(arm: str, present: Sequence[str]) -> str:
    """An arm's name as the comparison has it: one of the other side that has a name of this side is marked there."""
    return f"{arm} (against)" if arm in present else arm


def _check_spelling(texts: Sequence[str], known: set[str]) -> None:
    """Raises `UnknownNameError` where a contrast names an arm that neither a log has nor the choices declare."""
    for contrast in map(parse_contrast, texts):
        for arm in (contrast.a, contrast.b):
            if arm not in known:
                raise UnknownNameError("arm", arm, sorted(known))


def _check_sameness(table: pd.DataFrame, insist: bool) -> list[str]:
    """What stands in one table (a task, key and base model) and was not measured alike.

    Raises:
        RequestError: something was not, and nobody insists.
    """
    found = []
    for model, rows in table.groupby("base", observed=True):
        how = how_measured(rows)
        for task, key in how[["task", "key"]].drop_duplicates().itertuples(index=False):
            for problem in differences(how, None, task, key):
                if not insist:
                    raise RequestError(
                        f"The arms of {model} were not measured alike on {task} ({key}): {problem}.",
                        "Report them apart, measure them alike, or insist (then the page says so).",
                    )
                found.append(f"{task} ({key}) of {model}: {problem}")
    return found


def _measurable(read: Sequence[_Read], table: pd.DataFrame, every: Sequence[LogHeader]) -> dict[str, frozenset[str] | None]:
    """Base model to the patterns that can be believed, for those whose rollouts carry labels."""
    labelled = table[table["scorer"].astype(str).map(is_labelling)]
    if labelled.empty:
        return {}
    gates = gates_of_logs(every)
    found = {}
    for base, rows in labelled.groupby(labelled["base"].astype(str)):
        paths = [one.header.path for one in read if one.header.base == base]
        found[str(base)] = measurable_by(paths, rows["judge"].astype(str).unique(), gates)
    return found


def _agreements(table: pd.DataFrame) -> Iterator[Agreement]:
    rows = table.loc[table["key"].isin(list(PRIMARY)) & table["value"].notna(), ["key", "scorer", "log"]].astype(str)
    for key, mine in rows.drop_duplicates().groupby("key", sort=True):
        twice = mine[mine.duplicated("log", keep=False)]
        for pair in itertools.combinations(sorted(set(twice["scorer"])), 2):
            yield agreement(table, key=str(key), scorers=pair)


def _arms(read: Sequence[_Read], out: Path, choices: Choices, everywhere: set[str]) -> tuple[ArmFacts, ...]:
    book = load_prices()
    lineages: dict[str, Lineage] = {}
    arms: list[ArmFacts] = []
    order = [*choices.arms, *sorted(everywhere - set(choices.arms), key=_baseline_first)]
    labels = _unique_labels(order, choices)
    for number, name in enumerate(order, start=1):
        mine = [one for one in read if one.arm == name]
        facts = tuple(_log_facts(one, out) for one in mine)
        for log in facts:
            lineages.setdefault(log.header.model, trace_model(log.header.model))
        arms.append(
            ArmFacts(
                name=name,
                label=labels[name],
                number=number,
                logs=facts,
                traced=tuple((model, lineages[model]) for model in sorted({log.header.model for log in facts})),
                spent=spent(name, [one.log for one in mine], book) if mine else None,
            )
        )
    return tuple(arms)


def _baseline_first(name: str) -> tuple[bool, str]:
    return name.lower() not in ("base", "baseline"), name


def _unique_labels(order: Sequence[str], choices: Choices) -> dict[str, str]:
    labels = {name: choices.label(name) for name in order}
    twice = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    return {name: f"{label} ({name})" if label in twice else label for name, label in labels.items()}


def _log_facts(one: _Read, out: Path) -> LogFacts:
    path, header, results = Path(one.header.path), one.header, one.log.results
    return LogFacts(
        header=header,
        arm=one.arm,
        sha256=sha256_of_file(path),
        link=Path(os.path.relpath(path.absolute(), out.absolute())).as_posix(),
        done=results.completed_samples if results else 0,
        planned=max(results.total_samples if results else 0, len(header.planned) * header.epochs),
    )
