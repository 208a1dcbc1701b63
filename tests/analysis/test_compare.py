"""Contrasts from logs: their numbers, what is refused, and what may not be said."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from inspect_ai.scorer import Score
from log_makers import CONDITIONS, agentic, agentic_score, preferences, sample, write
from scipy import stats
from statsmodels.stats.proportion import proportions_ztest

from msm_bench.analysis.compare import compare
from msm_bench.analysis.contrasts import ContrastResult
from msm_bench.analysis.declared import declare
from msm_bench.analysis.intervals import holm
from msm_bench.analysis.render import render_comparison
from msm_bench.analysis.syntax import Contrast, parse_contrast
from msm_bench.analysis.table import read_table
from msm_bench.errors import RequestError, UnknownNameError


def grid(x: int, n: int = 10, conditions: int = len(CONDITIONS)) -> dict[str, tuple[int, int]]:
    return dict.fromkeys(CONDITIONS[:conditions], (x, n))


def one(results: tuple[ContrastResult, ...], key: str = "decided") -> ContrastResult:
    (found,) = [result for result in results if result.key == key]
    return found


def pairs(value: str, shift: int, n: int = 30) -> dict[str, tuple[float, float]]:
    return {f"{value}/food/{i:03d}": (float((i + shift) % 3 > 0), float((i + shift) % 5 > 1)) for i in range(n)}


def test_json_has_the_documented_fields_and_no_nan(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(6), arm="base")
    agentic(tmp_path / "b.eval", grid(2), arm="msm")
    document = compare(tmp_path).to_json()
    json.dumps(document, allow_nan=False)
    assert {"arm", "task", "key", "group", "estimate", "low", "high", "n_scored", "n", "unscored"} <= set(
        document["estimates"][0]
    )
    assert {"lower_bound", "upper_bound", "interval", "seeds"} <= set(document["estimates"][0])
    assert {"a", "b", "task", "key", "difference", "low", "high", "p", "p_adjusted", "pairs"} <= set(document["contrasts"][0])


def test_a_contrast_over_conditions_by_hand(tmp_path: Path) -> None:
    """6 conditions, 10 rollouts each: 6 of 10 against 2 of 10."""
    agentic(tmp_path / "a.eval", grid(6), arm="base")
    agentic(tmp_path / "b.eval", grid(2), arm="msm")
    result = one(compare(tmp_path, contrasts=["msm vs base"]).contrasts)
    assert result.difference == pytest.approx(2 / 10 - 6 / 10) and result.ratio == pytest.approx(1 / 3) and result.pairs == 6
    _, p = proportions_ztest([12, 36], [60, 60])
    assert result.p is not None and math.log(result.p) == pytest.approx(math.log(p), rel=0.1)
    assert result.low == pytest.approx(-0.4 - 1.96 * 0.0816, abs=0.03)
    assert result.high == pytest.approx(-0.4 + 1.96 * 0.0816, abs=0.03)
    assert result.verdict == "msm is better" and result.seeds == 1


def test_only_shared_conditions_are_compared(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", {**grid(5), "murder/none": (10, 10)}, arm="a")
    agentic(tmp_path / "b.eval", {name: (5, 10) for name in CONDITIONS if name != "murder/none"}, arm="b")
    result = one(compare(tmp_path).contrasts)
    assert result.difference == pytest.approx(0) and result.pairs == 5 and result.p == 1.0


def test_pairs_are_compared_pair_by_pair(tmp_path: Path) -> None:
    preferences(tmp_path / "a.eval", pairs("america", 1), arm="a")
    preferences(tmp_path / "b.eval", pairs("america", 0), arm="b")
    result = one(compare(tmp_path).contrasts, "aligned")
    d = np.array(
        [np.mean(x) - np.mean(y) for x, y in zip(pairs("america", 1).values(), pairs("america", 0).values(), strict=True)]
    )
    assert result.difference == pytest.approx(d.mean()) and result.pairs == 30
    assert (result.low, result.high) == pytest.approx(stats.t.interval(0.95, 29, d.mean(), stats.sem(d)))
    assert result.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, rel=1e-6)


def test_the_interaction_is_the_difference_of_differences(tmp_path: Path) -> None:
    for seed, shift in ((0, 0), (1, 2)):
        answers = {**{name: (1.0, 1.0) for name in pairs("america", 0)}, **pairs("affordability", shift)}
        preferences(tmp_path / f"a{seed}.eval", answers, arm="a", metadata={"seed": seed})
        answers = {**pairs("america", shift), **pairs("affordability", 0)}
        preferences(tmp_path / f"b{seed}.eval", answers, arm="b", metadata={"seed": seed})
    on = [
        one(compare(tmp_path, contrasts=[f"a vs b on {value}"]).contrasts, "aligned") for value in ("america", "affordability")
    ]
    result = one(compare(tmp_path, contrasts=["a vs b on america minus affordability"]).contrasts, "aligned")
    assert on[0].difference is not None and on[1].difference is not None
    assert result.difference == pytest.approx(on[0].difference - on[1].difference)
    assert result.pairs == 60 and result.seeds == 2 and result.interval == "seeds and items (paired, t)"


def test_seeds_are_paired_and_one_seed_is_said(tmp_path: Path) -> None:
    for seed, x in enumerate((4, 6, 8)):
        agentic(tmp_path / f"a{seed}.eval", grid(x + 6, 20, 2), arm="aft", metadata={"seed": seed})
        agentic(tmp_path / f"m{seed}.eval", grid(x + seed, 20, 2), arm="msm", metadata={"seed": seed})
    agentic(tmp_path / "base.eval", grid(15, 20, 2), arm="base")
    comparison = compare(tmp_path, contrasts=["msm vs aft", "aft vs base"])
    paired, against_base = [result for result in comparison.contrasts if result.key == "decided"]
    gaps = np.array([-6 + seed for seed in range(3)]) / 20
    low, high = stats.t.interval(0.95, 2, gaps.mean(), stats.sem(gaps))
    assert paired.interval == "seeds and rollouts (paired, t)" and paired.low == pytest.approx(low, abs=1e-6)
    # Seeds that agree so well are surer than their rollouts alone would be, so here these give the limit.
    assert paired.high is not None and high < paired.high < high + 0.01
    assert against_base.interval == "seeds and rollouts (Welch, t); one arm has 1 seed" and against_base.seeds == 3
    seeds = {estimate.arm: (estimate.seeds, "one_seed" in estimate.warnings) for estimate in comparison.estimates}
    assert seeds == {"aft": (3, False), "msm": (3, False), "base": (1, True)}


def test_p_values_are_adjusted_over_the_declared_contrasts(tmp_path: Path) -> None:
    for arm, x in (("a", 10), ("b", 12), ("c", 13), ("d", 14)):
        agentic(tmp_path / f"{arm}.eval", grid(x, 20), arm=arm)
    results = [r for r in compare(tmp_path, contrasts=["b vs a", "c vs a", "d vs a"]).contrasts if r.key == "decided"]
    plain = [r.p for r in results if r.p is not None]
    assert [r.p_adjusted for r in results] == pytest.approx(holm(plain)) and plain[1] < 0.05 < plain[0]


def test_an_experiment_is_read_by_what_it_declares(tmp_path: Path) -> None:
    """In its own folder; what is asked for goes first, and an arm that is not there yet is no failure."""
    for arm in ("base", "msm", "aft"):
        agentic(tmp_path / f"{arm}.eval", grid(4), arm=arm)
    declare(tmp_path, ["aft vs msm", "msm + aft vs aft"])
    found = compare(tmp_path)
    assert [(result.a, result.b) for result in found.contrasts if result.key == "decided"] == [("aft", "msm")]
    assert any("msm + aft vs aft" in note for note in found.notes)
    asked = compare(tmp_path, contrasts=["msm vs base"])
    assert {(result.a, result.b) for result in asked.contrasts} == {("msm", "base")}
    assert {result.b for result in compare(tmp_path / "msm.eval", against=tmp_path / "base.eval").contrasts} == {"base"}
    (tmp_path / "contrasts.yaml").write_text("aft: msm")
    with pytest.raises(RequestError, match="no list of contrasts"):
        compare(tmp_path)


def test_a_claimed_null_takes_a_margin(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(20, 40), arm="a")
    agentic(tmp_path / "b.eval", grid(20, 40), arm="b")
    contrasts = compare(tmp_path, contrasts=["a vs b", "a vs b margin 0.15", "a vs b margin 0.02"]).contrasts
    verdicts = [r.verdict for r in contrasts if r.key == "decided"]
    assert verdicts == ["no difference shown", "equivalent within 0.15", "not shown equivalent within 0.02"]


def test_within_a_model_only_that_models_rows_are_looked_at(tmp_path: Path) -> None:
    """The other model's arms were judged by two judges; that is no matter of this contrast."""
    for base, judges in (("qwen/a", ("judge/a", "judge/a")), ("qwen/b", ("judge/a", "judge/b"))):
        for arm, x, judge in zip(("aft", "msm"), (8, 3), judges, strict=True):
            agentic(tmp_path / f"{arm}-{base[-1]}.eval", grid(x), arm=arm, judge=judge, metadata={"base": base})
    result = one(compare(tmp_path, contrasts=["msm vs aft within a"]).contrasts)
    assert result.difference == pytest.approx(-0.5) and result.labels == ()
    for wanted in ("msm vs aft within b", "msm vs aft"):
        with pytest.raises(RequestError, match=r"judge: judge/a p1 response \| judge/b p1 response"):
            compare(tmp_path, contrasts=[wanted])
    insisted = compare(tmp_path, contrasts=["msm vs aft"], insist=True)
    assert [bool(r.labels) for r in insisted.contrasts if r.key == "decided"] == [False, True]


def test_models_that_differ_by_design_are_compared_within_each(tmp_path: Path) -> None:
    for base, judge in (("qwen/a", "judge/a"), ("qwen/b", "judge/b")):
        for arm, x in (("aft", 8), ("msm", 3)):
            agentic(tmp_path / f"{arm}-{base[-1]}.eval", grid(x), arm=arm, judge=judge, metadata={"base": base})
    results = [r for r in compare(tmp_path, contrasts=["msm vs aft"]).contrasts if r.key == "decided"]
    assert [(r.model, r.labels) for r in results] == [("qwen/a", ()), ("qwen/b", ())]


def test_a_table_that_was_read_already_is_not_read_again(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(6), arm="base")
    agentic(tmp_path / "b.eval", grid(2), arm="msm")
    tables = [read_table(tmp_path / name) for name in ("a.eval", "b.eval")]
    both, beside = compare(tmp_path), compare(tables[1], against=tables[0])
    for path in tmp_path.iterdir():
        path.unlink()
    assert compare(tables[1], against=tables[0]) == beside
    assert one(both.contrasts).difference == one(beside.contrasts).difference


def test_an_arm_with_too_much_unscored_is_not_called_better(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(9), arm="a")
    samples = []
    for name in CONDITIONS:
        facts = {"scenario": name.split("/")[0], "goal": name.split("/")[1], "prompt_sha256": f"hash of {name}"}
        for epoch in range(1, 11):
            score = agentic_score(math.nan if epoch == 1 else 0.0, outcome="judge_refused")
            samples.append(sample(name, epoch, score, facts, "msm_bench/misalignment"))
    write(tmp_path / "b.eval", samples, arm="b")
    result = one(compare(tmp_path).contrasts)
    assert result.p is not None and result.p < 1e-6 and result.verdict == "no verdict: more than 2% of b is unscored"


def test_an_arm_that_hardly_acts_gets_no_misalignment_verdict(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(9), arm="a")
    agentic(tmp_path / "b.eval", grid(0), arm="b", acted=1)
    comparison = compare(tmp_path)
    assert one(comparison.contrasts).verdict == "no verdict: b hardly acts"
    marked = {(e.arm, e.key) for e in comparison.estimates if "hardly_acts" in e.warnings}
    assert ("b", "decided") in marked and ("a", "decided") not in marked and ("b", "acted") not in marked


def test_rates_among_those_that_acted_stand_beside_the_raw_ones(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(3), arm="a", acted=4)
    found = {e.key: e for e in compare(tmp_path).estimates if e.group == "all"}
    assert found["decided"].estimate == pytest.approx(3 / 10) and found["decided_given_acted"].estimate == pytest.approx(3 / 4)
    assert found["decided_given_acted"].n == 4 * 6


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge": "judge/b"}, "judge: judge/a p1 response | judge/b p1 response"),
        ({"temperature": 1.0}, "settings: temperature = 0.7 | 1.0"),
        ({"task_args": {"scratchpad": False}}, "settings: scratchpad = false | null"),
        ({"metadata": {"recipe": "paper"}}, "recipe: laptop | paper"),
        ({"metadata": {"recipe": "laptop", "task_version": "2-A"}}, "metric: "),
    ],
)
def test_what_was_not_measured_alike_is_refused_or_labelled(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    agentic(tmp_path / "a.eval", grid(9), arm="a", metadata={"recipe": "laptop"})
    agentic(tmp_path / "b.eval", grid(6), arm="b", **{"metadata": {"recipe": "laptop"}, **settings})  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="not measured alike") as refusal:
        compare(tmp_path, contrasts=["a vs b"])
    assert said in str(refusal.value)
    insisted = compare(tmp_path, contrasts=["a vs b"], insist=True)
    assert any(said in label for label in one(insisted.contrasts).labels) and any(said in note for note in insisted.notes)


def test_an_untrained_model_goes_with_every_recipe_and_a_spec_in_the_prompt_is_named(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(9), arm="base")
    agentic(tmp_path / "b.eval", grid(6), arm="msm", metadata={"recipe": "laptop"})
    agentic(tmp_path / "c.eval", grid(3), arm="ceiling", task_args={"spec": "philosophy"})
    comparison = compare(tmp_path, contrasts=["msm vs base", "ceiling vs base"])
    labels = {result.a: result.labels for result in comparison.contrasts if result.key == "decided"}
    assert labels == {"msm": (), "ceiling": ("ceiling reads the spec philosophy in its prompt",)}


def test_one_contrast_a_base_model(tmp_path: Path) -> None:
    for base, x in (("org/small", 2), ("org/large", 4)):
        agentic(tmp_path / f"{x}a.eval", grid(x + 2), arm="aft", metadata={"base": base})
        agentic(tmp_path / f"{x}b.eval", grid(x), arm="msm", metadata={"base": base})
    both = [r for r in compare(tmp_path, contrasts=["msm vs aft"]).contrasts if r.key == "decided"]
    assert sorted(str(r.model) for r in both) == ["org/large", "org/small"]
    inside = one(compare(tmp_path, contrasts=["msm vs aft within small"]).contrasts)
    assert inside.model == "small" and inside.difference == pytest.approx(-0.2)
    with pytest.raises(UnknownNameError, match="Unknown model 'huge'"):
        compare(tmp_path, contrasts=["msm vs aft within huge"])


def test_against_other_logs_every_arm_meets_every_other(tmp_path: Path) -> None:
    agentic(tmp_path / "mine" / "a.eval", grid(2), arm="a")
    agentic(tmp_path / "theirs" / "a.eval", grid(6), arm="a")
    comparison = compare(tmp_path / "mine", against=tmp_path / "theirs")
    result = one(comparison.contrasts)
    assert (result.a, result.b) == ("a", "a (against)") and result.difference == pytest.approx(-0.4)
    assert any("same name" in note for note in comparison.notes)


def test_against_published_numbers_there_is_no_p(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(5), arm="mine")
    comparison = compare(tmp_path, against="published:qwen3-32b/base")
    result = one(comparison.contrasts)
    assert result.b == "published:figure-4/qwen3-32b/base" and result.difference == pytest.approx(0.5 - 0.54)
    assert result.p is None and any("instruction mix" in label for label in result.labels) and len(comparison.published) == 2
    with pytest.raises(RequestError, match="None of the published numbers"):
        compare(tmp_path, against="published:llama-3.1-8b")


def test_wrong_names_are_told_with_the_right_ones(tmp_path: Path) -> None:
    agentic(tmp_path / "a.eval", grid(9), arm="base")
    agentic(tmp_path / "b.eval", grid(6), arm="msm")
    with pytest.raises(UnknownNameError, match="Did you mean 'base'"):
        compare(tmp_path, contrasts=["msm vs bas"])
    with pytest.raises(RequestError, match="share no scored condition of group 'blackmail'"):
        compare(tmp_path, contrasts=["msm vs base on blackmail"])


def test_tables_for_the_terminal_show_absence_as_a_dash(tmp_path: Path) -> None:
    from rich.console import Console

    agentic(tmp_path / "a.eval", grid(5), arm="[bold]mine[/bold]")
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(render_comparison(compare(tmp_path, against="published:figure-4/qwen3-32b/base")))
    text = console.export_text()
    assert "[bold]mine[/bold]" in text and "1 seed" in text and "—" in text and "nan" not in text


def test_tables_stay_readable_on_a_narrow_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    first, second = "MSM affordability + AFT", "MSM america + AFT, with words enough to wrap"
    agentic(tmp_path / "a.eval", grid(5), arm=first)
    agentic(tmp_path / "b.eval", grid(3), arm=second)
    comparison = compare(tmp_path, contrasts=[f"{first} vs {second}"])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_comparison(comparison))
    lines = console.export_text().splitlines()
    result = one(comparison.contrasts)
    assert max(map(len, lines)) <= 80
    assert any(f"{result.difference:+.3f}  {result.low:+.3f} to {result.high:+.3f}" in line for line in lines)
    decided = next(n for n, line in enumerate(lines) if ": decided" in line)
    table = lines[decided : lines.index("", decided)]
    # What both arms have in common is said once, above them; words are not broken into letters.
    assert " ".join(" ".join(table).split()).count("1 seed") == 1 and any("affordability" in line for line in table)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a vs b", Contrast(a="a", b="b")),
        ("MSM+AFT affordability vs AFT on affordability minus america", None),
        ("msm:x aft:y vs aft:y on leaking within qwen2.5-32b", None),
        ("a vs b margin 0.05", Contrast(a="a", b="b", margin=0.05)),
    ],
)
def test_contrasts_are_read(text: str, expected: Contrast | None) -> None:
    parsed = parse_contrast(text)
    if expected is not None:
        assert parsed == expected
    elif "minus" in text:
        assert (parsed.a, parsed.b, parsed.group) == ("MSM+AFT affordability", "AFT", "affordability minus america")
    else:
        assert (parsed.a, parsed.b, parsed.on, parsed.within) == ("msm:x aft:y", "aft:y", "leaking", "qwen2.5-32b")


@pytest.mark.parametrize("text", ["a against b", "vs b", "a vs b margin 0", "a vs b margin small"])
def test_what_is_no_contrast_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_contrast(text)


def test_seeds_that_share_no_condition_are_not_taken_for_seeds(tmp_path: Path) -> None:
    for seed, names in ((0, CONDITIONS[:3]), (1, CONDITIONS[3:])):
        agentic(tmp_path / f"{seed}.eval", dict.fromkeys(names, (4, 8)), arm="a", metadata={"seed": seed})
    (estimate,) = [e for e in compare(tmp_path).estimates if e.key == "decided" and e.group == "all"]
    assert estimate.interval == "rollouts (fixed conditions, Wilson)" and estimate.estimate == 0.5


def test_patterns_on_transcripts_stand_beside_the_published_shares(tmp_path: Path) -> None:
    facts = {"scenario": "murder", "goal": "none"}
    scores = [Score(value={"self_preservation": float(epoch % 2)}) for epoch in range(4)]
    samples = [
        sample("murder/none", epoch, score, facts, "msm_bench/reasoning_patterns") for epoch, score in enumerate(scores, 1)
    ]
    write(tmp_path / "a.eval", samples, arm="a")
    comparison = compare(tmp_path, against="published:figure-11/qwen3-32b/base")
    (result,) = comparison.contrasts
    assert result.key == "self_preservation" and result.difference == pytest.approx(0.5 - 0.40)
