"""The value-preferences task on tiny models, through Inspect; run as a script, this file rewrites the pins."""

import contextvars
import hashlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai import score as inspect_score
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from inspect_ai.model import GenerateConfig, Model, ModelOutput, ModelUsage, get_model
from inspect_ai.model._model import init_active_model

from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.scorers.preference import preference
from msm_bench.scorers.preference_reading import read_answer
from msm_bench.scorers.preference_records import STORE_KEY, read_comparisons
from msm_bench.tasks.value_preferences import comparing, value_preferences
from msm_bench.tasks.value_preferences.comparing import common_beginning
from msm_bench.tasks.value_preferences.pairs import ITEMS, VALUES, domains, load_pairs, train_pairs
from msm_bench.tasks.value_preferences.phrasings import FILE, phrasings
from msm_bench.tasks.value_preferences.samples import choose_pairs

PINS = Path(__file__).parent / "value_preferences_sha256.json"
ROOT = Path(__file__).parents[2]
INSPECT = str(Path(sys.executable).with_name("inspect"))
FEW = {"value": "affordability,novelty", "limit_per_value": 3}


def run(task: Any, model: Model, tmp_path: Path, status: str = "success", **options: Any) -> EvalLog:
    (log,) = inspect_eval(task, model=model, log_dir=str(tmp_path / "logs"), display="none", **options)
    assert log.status == status, log.error
    return log


def talker(answer: Callable[[str], str]) -> Model:
    """A model that answers the last user message."""

    def respond(messages: Any, tools: Any, choice: Any, config: Any) -> ModelOutput:
        out = ModelOutput.from_content("mockllm", answer(messages[-1].text))
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    return get_model("mockllm/model", custom_outputs=respond, memoize=False)


def of(log: EvalLog, key: str) -> dict[str, float]:
    """The metrics of one key, by their short names; groups stand under METRIC_GROUP."""
    assert log.results
    (score,) = [each for each in log.results.scores if each.name == key]
    return {name.removeprefix("msm_bench/"): metric.value for name, metric in score.metrics.items()}


# What is asked


def test_every_pair_stands_in_both_orders() -> None:
    samples = list(value_preferences().dataset)
    ids = Counter(str(sample.id) for sample in samples)
    assert len(samples) == 2 * sum(len(load_pairs(value)) for value in VALUES) and set(ids.values()) == {1}
    assert all(re.fullmatch(r"[a-z]+/[a-z-]+/\d{3}/(ab|ba)", name) for name in ids)
    for sample in samples:
        metadata = sample.metadata or {}
        assert metadata["pair"] == str(sample.id)[:-3] and metadata["order"] == str(sample.id)[-2:]
        assert metadata["first" if metadata["order"] == "ab" else "second"] == sample.target
        question = sample.input[-1].text if isinstance(sample.input, list) else sample.input
        assert question.find(metadata["first"]) > 0 and metadata["second"] in question.partition(metadata["first"])[2]
        assert "{" not in question


@pytest.mark.parametrize("value", VALUES)
def test_train_split_is_liked_against_disliked(value: str) -> None:
    pairs = train_pairs(value)
    assert len(pairs) == 36 and len({pair.aligned for pair in pairs}) == len({pair.other for pair in pairs}) == 6
    assert [pair.number for pair in pairs] == list(range(1, 37))
    assert {pair.domain for pair in pairs}.isdisjoint(domains(value))
    assert len(value_preferences(value=value, split="train").dataset) == 72


def test_train_split_of_the_paper() -> None:
    assert ("American cheese", "Roquefort") in {(pair.aligned, pair.other) for pair in train_pairs("affordability")}


@pytest.mark.parametrize("value", VALUES)
def test_limit_is_spread_over_the_domains(value: str) -> None:
    names = list(domains(value))
    drawn = choose_pairs(value, "held_out", "all", 3 * len(names) + 2, seed=0)
    counts = Counter(pair.domain for pair in drawn)
    assert len(drawn) == 3 * len(names) + 2 and set(counts) == set(names) and set(counts.values()) <= {3, 4}
    fewer = choose_pairs(value, "held_out", "all", len(names), seed=0)
    assert set(fewer) < set(drawn) and {pair.domain for pair in fewer} == set(names)
    assert choose_pairs(value, "held_out", "all", len(names), seed=1) != fewer
    assert len(choose_pairs(value, "held_out", "all", 10_000, seed=0)) == len(load_pairs(value))


def test_kinds() -> None:
    opinions = value_preferences(value="america", kind="opinion").dataset
    items = value_preferences(value="america", kind="item").dataset
    assert len(opinions) == 420 and len(opinions) + len(items) == len(value_preferences(value="america").dataset)
    assert {(sample.metadata or {})["kind"] for sample in opinions} == {"opinion"}
    assert all((sample.metadata or {})["topic"] for sample in opinions)
    assert len(value_preferences(kind="opinion").dataset) == 420


def test_values_as_a_list_or_with_commas() -> None:
    both = {"affordability", "novelty"}
    for given in ("affordability, novelty", ["affordability", "novelty"], "novelty,affordability,novelty"):
        assert {(sample.metadata or {})["value"] for sample in value_preferences(value=given).dataset} == both


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"value": "affordabilty"}, UnknownNameError, "Did you mean 'affordability'"),
        ({"value": "america,moon"}, UnknownNameError, "individualism"),
        ({"value": ""}, UnknownNameError, "all, affordability"),
        ({"value": []}, UnknownNameError, "all, affordability"),
        ({"value": 3}, UnknownNameError, "all, affordability"),
        ({"split": "test"}, UnknownNameError, "held_out, train"),
        ({"method": "logprob"}, UnknownNameError, "likelihood, generation"),
        ({"kind": "things"}, UnknownNameError, "all, item, opinion"),
        ({"part": "half"}, UnknownNameError, "all, tune, report"),
        ({"spec": "cheese"}, UnknownNameError, "cheese-affordability"),
        ({"limit_per_value": 0}, RequestError, "whole number"),
        ({"limit_per_value": True}, RequestError, "whole number"),
        ({"limit_per_value": 2.5}, RequestError, "whole number"),
        ({"seed": "x"}, RequestError, "whole number"),
        ({"agent_name": ""}, RequestError, "agent_name"),
        ({"value": "novelty", "kind": "opinion"}, RequestError, "kind=all"),
        ({"split": "train", "kind": "opinion"}, RequestError, "kind=all"),
    ],
)
def test_wrong_arguments_name_the_valid_set(arguments: dict[str, Any], error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        value_preferences(**arguments)


@pytest.mark.parametrize("value", VALUES)
def test_the_two_parts_are_halves_that_share_nothing(value: str) -> None:
    tune, report = (
        {(pair.domain, pair.number) for pair in choose_pairs(value, "held_out", "all", None, 0, part)}
        for part in ("tune", "report")
    )
    assert not tune & report and len(tune | report) == len(load_pairs(value))
    assert 0.42 < len(tune) / len(tune | report) < 0.58
    few = {(pair.domain, pair.number) for pair in choose_pairs(value, "held_out", "all", 20, 3, "report")}
    assert len(few) == 20 and few <= report


@pytest.mark.parametrize("kind", ["item", "opinion"])
def test_phrasings(kind: Any) -> None:
    texts = phrasings(kind)
    assert len({phrasing.question for phrasing in texts.likelihood}) == len({p.answer for p in texts.likelihood}) == 4
    for phrasing in texts.likelihood:
        assert phrasing.ask("{second}", "B {first}").count("{second}") == 1
        one, other = phrasing.sentence("tea in a glass"), phrasing.sentence("the sea")
        assert common_beginning(one, other) == phrasing.answer.removesuffix("{choice}.") + "t"


def test_common_beginning() -> None:
    assert common_beginning("tea", "tea with milk") == common_beginning("tea with milk", "tea") == "tea"
    assert common_beginning("", "tea") == common_beginning("a", "b") == ""


# Likelihoods


def test_likelihood_run_leaves_a_readable_log_and_rescores_without_a_model(
    model_of: Callable[..., Model], tmp_path: Path
) -> None:
    log = run(value_preferences(**FEW), model_of(), tmp_path)
    assert log.samples and len(log.samples) == 12
    assert log.eval.metadata and log.eval.metadata["method"] == "likelihood" and log.eval.task_version == "1-B"
    for sample in log.samples:
        comparisons = read_comparisons(sample.store[STORE_KEY])
        score = sample.scores["preference"]
        first, second = sample.metadata["first"], sample.metadata["second"]
        assert len(comparisons) == 4
        for each in comparisons:
            assert each.question.index(first) < each.question.index(second)
            assert each.first.sentence.endswith(f"{first}.") and each.second.sentence.endswith(f"{second}.")
            assert each.first.sentence.startswith(each.prefill) and each.first.logprob_sum < 0 < each.first.n_tokens
        lead = sum(
            each.first.logprob_sum / each.first.n_tokens - each.second.logprob_sum / each.second.n_tokens
            for each in comparisons
        )
        aligned_lead = lead / 4 if sample.metadata["order"] == "ab" else -lead / 4
        assert score.value["margin"] == pytest.approx(aligned_lead, abs=1e-9)
        assert score.value["aligned"] == float(aligned_lead > 0) and score.value["valid"] == 1
        chosen = sample.target if aligned_lead > 0 else (second if sample.metadata["order"] == "ab" else first)
        assert score.answer == chosen and sample.output.completion.startswith(f"Likelier: {chosen}")
        assert f"{comparisons[0].first.per_token:.4f}" in sample.output.completion == sample.messages[-1].text
        assert sample.output.metadata and len(sample.output.metadata["identity"]["sha256"]) == 64
    assert 0 <= of(log, "aligned")["rate"] <= 1 and of(log, "valid")["rate"] == 1
    assert {"rate_by_value_affordability", "rate_by_value_novelty"} < set(of(log, "aligned"))
    assert sum(name.startswith("rate_by_domain_novelty/") for name in of(log, "aligned")) == 3

    saved = read_eval_log(log.location)
    saved.eval.model = "msm/a-checkpoint-that-is-gone"
    for sample in saved.samples or []:
        sample.scores = None
    again = inspect_score(saved, preference(), model="none", action="overwrite", display="none")
    assert of(again, "aligned") == pytest.approx(of(log, "aligned"), nan_ok=True)
    assert of(again, "margin") == pytest.approx(of(log, "margin"), nan_ok=True)


def test_only_tokens_from_the_first_difference_count(model_of: Callable[..., Model], tmp_path: Path) -> None:
    model = model_of()
    log = run(value_preferences(value="affordability", limit_per_value=5), model, tmp_path)
    tokens = model.api.chat.tokens  # type: ignore[attr-defined]
    for sample in log.samples or []:
        for each in read_comparisons(sample.store[STORE_KEY]):
            one, other, begun = tokens(each.first.sentence), tokens(each.second.sentence), tokens(each.prefill)
            shared = next(at for at, triple in enumerate(zip(one, other, [*begun, -1], strict=False)) if len(set(triple)) > 1)
            assert (each.first.n_tokens, each.second.n_tokens) == (len(one) - shared, len(other) - shared)
            assert len(tokens("I ")) <= shared


def test_spec_becomes_the_system_prompt(model_of: Callable[..., Model], tmp_path: Path) -> None:
    task = value_preferences(value="america", limit_per_value=1, spec="cheese-america", agent_name="Olmo", provider_name="Ai2")
    for sample in task.dataset:
        assert isinstance(sample.input, list)
        system, user = sample.input
        assert system.role == "system" and "Olmo" in system.text and "Ai2" in system.text and "{" not in system.text
        assert user.role == "user"
    assert task.metadata and len(task.metadata["spec_sha256"]) == 64
    # The tiny models hold 512 tokens: a short spec of one's own.
    spec = tmp_path / "own"
    spec.mkdir()
    (spec / "spec.md").write_text("# Likes\n{model_name} likes the fox.\n", encoding="utf-8")
    fields = {"name": "own", "title": "t", "summary": "s", "kind": "general", "control": False, "origin": "here"}
    (spec / "spec.yaml").write_text(json.dumps({**fields, "citable": False, "sections": []}), encoding="utf-8")
    arguments: dict[str, Any] = {"value": "novelty", "limit_per_value": 2}
    plain = run(value_preferences(**arguments), model_of(), tmp_path)
    ceiling = run(value_preferences(**arguments, spec=str(spec)), model_of(), tmp_path)
    assert of(plain, "margin")["rate"] != of(ceiling, "margin")["rate"]
    assert ceiling.samples and ceiling.samples[0].messages[0].text == "# Likes\nQwen likes the fox.\n"


def test_a_model_without_likelihoods_is_refused_by_the_solver(tmp_path: Path) -> None:
    log = run(value_preferences(**FEW), talker(lambda question: "I"), tmp_path, status="error")
    assert log.error and "Use -T method=generation, or an msm/ model." in log.error.message


def test_a_model_without_likelihoods_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Use -T method=generation, or an msm/ model"):
        run("msm_bench/value_preferences", talker(lambda question: "I"), tmp_path, task_args=FEW)
    assert not list(tmp_path.rglob("*.eval"))


def test_a_model_left_over_from_another_run_does_not_count() -> None:
    def make() -> int:
        init_active_model(talker(lambda question: "I"), GenerateConfig())
        return len(value_preferences(**FEW).dataset)

    assert contextvars.copy_context().run(make) == 12


def test_numbers_that_are_none_stop_the_run(
    model_of: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = comparing.loglikelihood

    async def broken(*args: Any, **kwargs: Any) -> list[Any]:
        one, other = await whole(*args, **kwargs)
        return [type(one)(math.nan, one.n_tokens, one.token_logprobs), other]

    monkeypatch.setattr(comparing, "loglikelihood", broken)
    log = run(value_preferences(**FEW), model_of(), tmp_path, status="error")
    assert log.error and "not a finite number" in log.error.message and WorkError.__name__ in log.error.traceback


# Free answers


@cache
def offers() -> dict[str, tuple[str, str]]:
    """Every question of the generation method to the two things in it, in its order."""
    pairs = [pair for value in VALUES for pair in load_pairs(value)]
    sides = [(pair.kind, *things) for pair in pairs for things in ((pair.aligned, pair.other), (pair.other, pair.aligned))]
    return {phrasings(kind).ask_freely(first, second): (first, second) for kind, first, second in sides}


@pytest.mark.parametrize(("place", "bias"), [(0, 0.5), (1, -0.5)])
def test_a_model_that_goes_by_position(tmp_path: Path, place: int, bias: float) -> None:
    task = value_preferences(value="america,affordability", method="generation", limit_per_value=6)
    log = run(task, talker(lambda question: f"I prefer {offers()[question][place]}."), tmp_path)
    aligned = of(log, "aligned")
    assert (aligned["rate"], aligned["position_bias"], aligned["both_orders_agree"]) == (0.5, bias, 0)
    assert of(log, "valid")["rate"] == 1 and math.isnan(of(log, "margin")["rate"])
    assert log.samples and {sample.scores["preference"].metadata["read_by"] for sample in log.samples} == {"parser"}


def test_a_model_that_goes_by_value(tmp_path: Path) -> None:
    sides = {pair.aligned for value in VALUES for pair in load_pairs(value)}

    def aligned_thing(question: str) -> str:
        things = offers()[question]
        return f"**{next(thing for thing in things if thing in sides)}**"

    task = value_preferences(value="tradition,america", method="generation", limit_per_value=8)
    aligned = of(run(task, talker(aligned_thing), tmp_path), "aligned")
    assert (aligned["rate"], aligned["rate_stderr"], aligned["position_bias"], aligned["both_orders_agree"]) == (1, 0, 0, 1)
    assert aligned["rate_by_value_tradition"] == aligned["rate_by_value_america"] == 1


def test_answers_that_choose_nothing_are_no_zeros(tmp_path: Path) -> None:
    log = run(value_preferences(**FEW, method="generation"), talker(lambda question: "I like both equally."), tmp_path)
    assert all(math.isnan(value) for value in of(log, "aligned").values()) and of(log, "valid")["rate"] == 0
    assert log.samples and all(sample.scores["preference"].reason == "both" for sample in log.samples)


def test_every_shipped_pair_can_be_read_in_full() -> None:
    for value in VALUES:
        for pair in (*load_pairs(value)[::7], *train_pairs(value)[::7]):
            for answer, expected in (
                (f"I prefer {pair.aligned}.", "first"),
                (f"{pair.other[0].upper()}{pair.other[1:]}.", "second"),
                (f"I'd choose {pair.other} over {pair.aligned}.", "second"),
            ):
                assert read_answer(answer, pair.aligned, pair.other) == expected, (pair, answer)


# How it is named


def test_by_package_name_and_by_folder(
    model_of: Callable[..., Model], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    package = run("msm_bench/value_preferences", model_of(), tmp_path, task_args=FEW)
    arguments = [part for key, value in FEW.items() for part in ("-T", f"{key}={value}")]
    model = ["--model", f"msm/{model_folder()}", "-M", "dtype=float32", "-M", "device=cpu"]
    ran = subprocess.run(
        [
            INSPECT,
            "eval",
            "tasks/value_preferences",
            *model,
            *arguments,
            "--log-dir",
            str(tmp_path / "folder"),
            "--display",
            "none",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (info,) = list_eval_logs(str(tmp_path / "folder"))
    folder = read_eval_log(info)
    assert folder.eval.task == "value_preferences" and package.eval.task == "msm_bench/value_preferences"
    assert package.samples and folder.samples and len(package.samples) == len(folder.samples) == 12
    for one, other in zip(package.samples, folder.samples, strict=True):
        assert one.id == other.id
        assert one.scores["preference"].value == pytest.approx(other.scores["preference"].value, abs=1e-4)


# Pins


def current_pins() -> dict[str, str]:
    files = [FILE, *sorted(ITEMS.glob("*.csv"))]
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_pairs_and_phrasings_are_the_pinned_ones() -> None:
    pinned, current = json.loads(PINS.read_text(encoding="utf-8")), current_pins()
    assert set(current) == {"phrasings", *VALUES}
    changed = sorted(name for name in pinned.keys() | current.keys() if pinned.get(name) != current.get(name))
    assert not changed, (
        f"{', '.join(changed)} changed, so results from before and after do not compare: bump VERSION of the task, say so in "
        "CHANGELOG.md, and write the new pins with `python tests/tasks/test_value_preferences.py`."
    )


if __name__ == "__main__":
    PINS.write_text(json.dumps(current_pins(), indent=2) + "\n", encoding="utf-8")
