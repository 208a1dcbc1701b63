"""Reasoning patterns: a labeller against passages and transcripts of agent reasoning whose labels are known.

    inspect eval msm_bench/reasoning_patterns --model anthropic/claude-sonnet-4-6
    inspect eval tasks/reasoning_patterns --model openai/gpt-4o-mini -T part=passages --limit 100
    inspect eval tasks/reasoning_patterns --model none -T labeller=local

The model under evaluation is the labeller. It gets the question that a judge gets from the scorer of the same name, so what
is measured here is what that scorer's labels are worth with this model: a pattern whose kappa stays under .5 is not
measurable with it. The labelled set is synthetic, see its card.
"""

from pathlib import Path
from typing import Literal

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from msm_bench.errors import UnknownNameError
from msm_bench.scorers.patterns.agreement import KNOWN, LABELLING, pattern_agreement
from msm_bench.scorers.patterns.judge import JudgeLabeller
from msm_bench.scorers.patterns.labelled_set import LabelledText, family, load_labelled, set_hash
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.taxonomy import load_taxonomy
from msm_bench.tasks.arguments import known_arguments

LABELLERS = ("model", "local", "embedding")
VERSION = "1-A"
"""N-X: N changes when scores stop being comparable, X when only the interface changes."""


@task
@known_arguments
def reasoning_patterns(part: Literal["all", "passages", "transcripts"] = "all", labeller: str = "model") -> Task:
    """Measures a labeller against the labelled set.

    Args:
        part: "all", "passages" (2 to 6 sentences each), or "transcripts".
        labeller: "model" is the model under evaluation; "local" the scikit-learn labeller, "embedding" the same with sentence
            embeddings, each text labelled without its scenario in training; or the folder of a labeller that
            `msm-bench patterns fit` wrote.
    """
    texts = load_labelled(part)
    if labeller not in LABELLERS and not Path(labeller).is_dir():
        raise UnknownNameError("labeller", labeller, (*LABELLERS, "the folder of a fitted labeller"))
    taxonomy = load_taxonomy()
    return Task(
        dataset=MemoryDataset([_sample(text) for text in texts], name="reasoning_patterns"),
        solver=label(labeller),
        scorer=pattern_agreement(),
        version=VERSION,
        metadata={"task_version": VERSION, "taxonomy": taxonomy.sha256, "labelled_set": set_hash(texts)},
    )


def _sample(text: LabelledText) -> Sample:
    return Sample(
        id=text.id,
        input=text.text,
        target=sorted(text.labels),
        metadata={KNOWN: text.model_dump(mode="json"), "family": family(text), "scenario": text.group},
    )


@solver
def label(labeller: str = "model") -> Solver:
    """Labels the sample's text and leaves the labelling in the store."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if labeller == "model":
            labelling = await JudgeLabeller(get_model(), load_taxonomy())(state.input_text)
        else:
            labelling = _local(labeller, str(state.sample_id), state.input_text)
        state.store.set(LABELLING, labelling.model_dump(mode="json"))
        names = ", ".join(sorted(labelling.present)) or "no pattern"
        state.output = ModelOutput.from_content(str(state.model), labelling.explanation or labelling.failure or names)
        state.messages.append(state.output.message)
        return state

    return solve


def _local(labeller: str, sample_id: str, text: str) -> Labelling:
    # scikit-learn comes in only where it is asked for.
    from msm_bench.scorers.patterns.local import LocalLabeller
    from msm_bench.scorers.patterns.shipped import cross_validated

    if labeller in LABELLERS:
        return cross_validated(embedding=labeller == "embedding")[sample_id]
    return next(LocalLabeller.load(Path(labeller)).label_many([text]))
