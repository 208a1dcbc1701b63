"""The task with scripted labellers: the gates say the right thing of a perfect, a noisy and a broken one."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai import score as inspect_score
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from msm_bench.errors import UnknownNameError
from msm_bench.scorers.patterns.agreement import gates_from_log, pattern_agreement
from msm_bench.scorers.patterns.gates import NOT_MEASURABLE, table
from msm_bench.scorers.patterns.labelled_set import LabelledText, load_labelled
from msm_bench.scorers.patterns.taxonomy import load_taxonomy
from msm_bench.scorers.patterns.text import sentences
from msm_bench.tasks.reasoning_patterns import reasoning_patterns

IDS = load_taxonomy().ids
KNOWN = {text.text: text for text in load_labelled("transcripts")}
NOISY = ("equanimity", "policy_misuse")


def perfect(text: LabelledText) -> str:
    claims = [{"pattern": s.pattern, "quote": text.text[s.start : s.end]} for s in text.spans or ()]
    return f"<labels>{json.dumps(claims)}</labels>"


def noisy(text: LabelledText) -> str:
    """Right about most patterns, at random about two."""
    draw = random.Random(text.id)
    first = text.text[slice(*sentences(text.text)[0])]
    names = [name for name in IDS if (draw.random() < 0.5 if name in NOISY else name in text.labels)]
    return f"<labels>{json.dumps([{'pattern': name, 'quote': first} for name in names])}</labels>"


def broken(text: LabelledText) -> str:
    return "All of these patterns are interesting."


def silent(text: LabelledText) -> str:
    return "<labels>[]</labels>"


def inventing(text: LabelledText) -> str:
    """Finds everything, with quotes that are nowhere in the text."""
    return f"<labels>{json.dumps([{'pattern': name, 'quote': 'It was a dark and stormy night.'} for name in IDS])}</labels>"


def run(tmp_path: Path, script: Any, limit: int | None = None) -> Any:
    def answer(messages: Any, tools: Any, choice: Any, config: Any) -> ModelOutput:
        asked = next(message.text for message in messages if message.role == "user")
        body = asked.partition(" begin =====\n")[2].rpartition("\n===== ")[0]
        out = ModelOutput.from_content("mockllm", script(KNOWN[body]))
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    (log,) = inspect_eval(
        reasoning_patterns(part="transcripts"),
        limit=limit,
        model=get_model("mockllm/model", custom_outputs=answer, memoize=False),
        log_dir=str(tmp_path),
        display="none",
    )
    assert log.status == "success", log.error
    return log


def metrics(log: Any) -> dict[str, float]:
    return {
        name.split("/", 1)[-1] if name.startswith("msm") else name: m.value
        for s in log.results.scores
        for name, m in s.metrics.items()
    }


def test_perfect_judge_passes_every_gate(tmp_path: Path) -> None:
    log = run(tmp_path, perfect)
    found = gates_from_log(log)
    assert [gate.pattern for gate in found] == list(IDS)
    assert all(gate.kappa == 1 and gate.precision == 1 and gate.recall == 1 and gate.measurable for gate in found)
    assert all(gate.n == gate.n_all == len(KNOWN) and not gate.hard_negative_errors > 0 for gate in found)
    values = metrics(log)
    assert values["patterns_measurable"] == 18 and values["mean_kappa"] == 1 and values["n_scored"] == len(KNOWN)
    again = inspect_score(log, pattern_agreement(), action="overwrite", display="none")
    assert table(gates_from_log(again)) == table(found)


def test_noisy_judge_fails_where_it_is_noisy(tmp_path: Path) -> None:
    log = run(tmp_path, noisy)
    for gate in gates_from_log(log):
        assert gate.measurable == (gate.pattern not in NOISY), gate
    values = metrics(log)
    assert values["patterns_measurable"] == 16
    assert values["measurable/equanimity"] == 0 and values["measurable/human_safety"] == 1
    assert table(gates_from_log(log)).count(NOT_MEASURABLE) == 2


def test_broken_judge_measures_nothing(tmp_path: Path) -> None:
    log = run(tmp_path, broken, limit=10)
    for gate in gates_from_log(log):
        assert gate.n == 0 and gate.n_all == 10 and math.isnan(gate.kappa) and not gate.measurable
    score = log.samples[0].scores["pattern_agreement"]
    assert score.reason == "judge_unparseable" and all(math.isnan(value) for value in score.value.values())


@pytest.mark.parametrize("script", [silent, inventing])
def test_judge_without_a_true_quote_finds_nothing(tmp_path: Path, script: Any) -> None:
    log = run(tmp_path, script, limit=20)
    for gate in gates_from_log(log):
        assert gate.n == 20 and gate.found == 0 and not gate.recall > 0 and not gate.measurable
    if script is inventing:
        assert log.samples[0].scores["pattern_agreement"].metadata["dropped"] == {"quote_not_in_text": 18}


@pytest.mark.parametrize(("arguments", "names"), [({"part": "half"}, "passages"), ({"labeller": "lokal"}, "local")])
def test_wrong_arguments_name_the_valid_set(arguments: dict[str, Any], names: str) -> None:
    with pytest.raises(UnknownNameError, match=names):
        reasoning_patterns(**arguments)


@pytest.mark.slow
def test_local_labeller_is_measured_without_its_own_scenario(tmp_path: Path) -> None:
    (log,) = inspect_eval(reasoning_patterns(labeller="local"), model="none", log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    found = gates_from_log(log)
    assert all(gate.n == len(load_labelled()) and gate.kappa < 0.95 and not math.isnan(gate.brier) for gate in found)
