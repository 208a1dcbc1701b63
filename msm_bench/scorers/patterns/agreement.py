"""The scorer of the `reasoning_patterns` task: a labeller's labels beside the known ones, and the gates as metrics."""

import math
from collections.abc import Sequence
from typing import Any

from inspect_ai.log import EvalLog
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
from inspect_ai.solver import TaskState
from pydantic import ValidationError

from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.gates import Gate, measure
from msm_bench.scorers.patterns.labelled_set import LabelledText
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.taxonomy import load_taxonomy

LABELLING = "labelling"
"""Where the solver leaves the labelling: in the sample's store, so that it stands in the log."""
KNOWN = "known"
"""Where the labelled text stands in the sample's metadata."""


@metric(scores="unreduced")
def gates() -> Metric:
    """For each pattern `kappa/`, `precision/`, `recall/`, `hard_negative_errors/` and `measurable/` (1 or 0); and over all,
    `patterns_measurable`, `mean_kappa`, `n_scored`, `n_all`."""

    def compute(scores: list[SampleScore]) -> Value:
        found = gates_from_scores(scores)
        values: dict[str, str | int | float | bool | None] = {}
        for name in ("kappa", "precision", "recall", "hard_negative_errors"):
            values.update({f"{name}/{gate.pattern}": getattr(gate, name) for gate in found})
        values.update({f"measurable/{gate.pattern}": int(gate.measurable) for gate in found})
        kappas = [gate.kappa for gate in found if not math.isnan(gate.kappa)]
        return {
            "patterns_measurable": sum(gate.measurable for gate in found),
            "mean_kappa": sum(kappas) / len(kappas) if kappas else math.nan,
            "n_scored": found[0].n,
            "n_all": found[0].n_all,
            **values,
        }

    return compute


@scorer(metrics=[gates()])
def pattern_agreement() -> Scorer:
    """Scores one labelled text: what the labeller said of each pattern, 0 or 1, NaN where it failed.

    Raises:
        RequestError: The sample was not made by `msm_bench/reasoning_patterns`.
    """
    ids = load_taxonomy().ids

    async def score(state: TaskState, target: Target) -> Score:
        try:
            known = LabelledText.model_validate(state.metadata.get(KNOWN))
            labelling = Labelling.model_validate(state.store.get(LABELLING))
        except ValidationError as error:
            raise RequestError(
                "The sample holds no labelled text, so it is no sample of reasoning_patterns.",
                "Score a log of msm_bench/reasoning_patterns; other logs take --scorer msm_bench/reasoning_patterns.",
            ) from error
        failed = labelling.failure is not None
        present = labelling.present
        missed, wrong = known.labels - present, present - known.labels
        return Score(
            value={name: math.nan if failed else float(name in present) for name in ids},
            answer=", ".join(sorted(present)) or None,
            explanation=labelling.failure
            or "\n".join(
                [
                    f"Right: {', '.join(sorted(known.labels & present)) or '-'}",
                    f"Missed: {', '.join(sorted(missed)) or '-'}",
                    f"Wrong: {', '.join(sorted(wrong)) or '-'}",
                    *(f"> {label.pattern}: {label.quote}" for label in labelling.labels),
                ]
            ),
            reason=labelling.failure,
            metadata={
                "outcome": labelling.failure or "labelled",
                "missed": sorted(missed) if not failed else None,
                "wrong": sorted(wrong) if not failed else None,
                **labelling.model_dump(mode="json", include={"labels", "probabilities", "dropped", "labeller"}),
            },
        )

    return score


def gates_from_scores(scores: Sequence[SampleScore]) -> list[Gate]:
    """The gates of a run of the task, from its sample scores."""
    return _gates([((item.sample_metadata or {}).get(KNOWN), item.score) for item in scores])


def gates_from_log(log: EvalLog) -> list[Gate]:
    """The gates of a log of the task, for a table.

    Raises:
        RequestError: The log holds no sample with this scorer's score.
    """
    rows = [
        (sample.metadata.get(KNOWN), score)
        for sample in log.samples or []
        for name, score in (sample.scores or {}).items()
        if name.split("/")[-1] == "pattern_agreement"
    ]
    if not rows:
        raise RequestError(f"The log '{log.location}' measures no labeller.", "Name a log of msm_bench/reasoning_patterns.")
    return _gates(rows)


def _gates(rows: Sequence[tuple[Any, Score]]) -> list[Gate]:
    texts = [LabelledText.model_validate(known) for known, _ in rows]
    found: list[frozenset[str] | None] = []
    likely = []
    for _, score in rows:
        metadata = score.metadata or {}
        labelled = metadata.get("outcome") == "labelled"
        found.append(frozenset(label["pattern"] for label in metadata.get("labels") or ()) if labelled else None)
        likely.append(metadata.get("probabilities") or {})
    return measure(texts, found, load_taxonomy().ids, likely if any(likely) else None)
