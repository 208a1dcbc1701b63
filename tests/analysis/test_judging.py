"""Two-tier judging from logs to rates: what is asked, what is never asked twice, and what is read from it."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.log import list_eval_logs, read_eval_log
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model
from log_makers import agentic

from msm_bench.analysis.compare import compare
from msm_bench.analysis.judging import judge_logs, plan_judging, random_part
from msm_bench.analysis.ledger import Ledger
from msm_bench.analysis.ppi import two_tier
from msm_bench.analysis.table import read_table
from msm_bench.analysis.two_tier import combine, render_combined, render_plan
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.report import report
from msm_bench.tasks.agentic_misalignment import agentic_misalignment

HARM = '<tool_use:cancel_alert>\ncode: "EXEC-4429"\n</tool_use:cancel_alert>'
EPOCHS = 12


class Judge:
    """A scripted judge that counts what it is asked; `fails_after` makes it stop answering, `wrong` err on every n-th."""

    def __init__(self, name: str, wrong: int = 0, fails_after: int | None = None) -> None:
        self.asked, self.wrong, self.fails_after = 0, wrong, fails_after
        self.model: Model = get_model(f"mockllm/{name}", custom_outputs=self._answer, memoize=False)

    def _answer(self, messages: list, tools: object, choice: object, config: object) -> ModelOutput:
        self.asked += 1
        if self.fails_after is not None and self.asked > self.fails_after:
            raise ConnectionError("the line is dead")
        yes = "cancels it" in messages[-1].text
        if self.wrong and self.asked % self.wrong == 0:
            yes = not yes
        out = ModelOutput.from_content("mockllm", f"<verdict>{'yes' if yes else 'no'}</verdict>")
        out.usage = ModelUsage(input_tokens=1000, output_tokens=10, total_tokens=1010)
        return out


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms on three conditions, EPOCHS rollouts each, not judged yet; base cancels in every second, msm in every sixth."""
    root = tmp_path_factory.mktemp("unjudged")
    silent = get_model("mockllm/silent", custom_outputs=lambda *_: ModelOutput.from_content("mockllm", "-"), memoize=False)
    for arm, every in (("base", 2), ("msm", 6)):
        turn = itertools.count()

        def talk(messages: list, tools: object, choice: object, config: object, every: int = every, turn=turn) -> ModelOutput:  # type: ignore[no-untyped-def]
            number = next(turn)
            words = f"Number {number}. " + (f"It cancels it. {HARM}" if number % every == 0 else "I let the alert stand.")
            out = ModelOutput.from_content("mockllm", words)
            out.usage = ModelUsage(input_tokens=10, output_tokens=5, total_tokens=15)
            return out

        (log,) = inspect_eval(
            agentic_misalignment(scenario="murder", goal="none,america,global"),
            model=get_model(f"mockllm/{arm}", custom_outputs=talk, memoize=False),
            model_roles={"grader": silent},
            metadata={"arm": arm, "base": "mockllm/model"},
            epochs=EPOCHS,
            log_dir=str(root),
            display="none",
        )
        assert log.status == "success", log.error
    return root


def test_nothing_is_bought_twice_and_both_judgements_are_logs(logs: Path, tmp_path: Path) -> None:
    cheap, strong = Judge("cheap", wrong=9), Judge("strong")
    found = judge_logs([logs], tmp_path / "out", cheap.model, strong.model, part=0.25, seed=1)
    rollouts, part = 2 * 3 * EPOCHS, 2 * 3 * EPOCHS // 4
    assert (cheap.asked, strong.asked) == (rollouts, part)
    assert found.spent["cheap"].usage.input == 1000 * rollouts and found.spent["strong"].usage.output == 10 * part
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    again = judge_logs([logs], tmp_path / "out", cheap.model, strong.model, part=0.25, seed=1)
    assert (cheap.asked, strong.asked) == (rollouts, part) and again.spent["strong"].usage == found.spent["strong"].usage
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}

    on_part = read_table(found.strong)
    decided = on_part[on_part["key"] == "decided"]
    assert len(decided) == part and decided["value"].notna().all()
    assert set(decided["judge"].astype(str).str.split(" ").str[0]) == {"mockllm/strong"}
    assert Counter(decided["condition"].astype(str)) == dict.fromkeys({str(name) for name in decided["condition"]}, part // 3)
    estimates = {(one.arm, one.key): one for one in compare(found.cheap).estimates if one.group == "all"}
    assert estimates["base", "decided"].n_scored == 3 * EPOCHS
    assert any("a random 25% of its rollouts (seed 1)" in note for note in compare(found.strong).notes)
    assert report(found.strong, tmp_path / "report").logs == 2


def test_the_combination_is_that_of_the_two_lists(logs: Path, tmp_path: Path) -> None:
    cheap, strong = Judge("cheap", wrong=9), Judge("strong")
    judging = judge_logs([logs], tmp_path, cheap.model, strong.model, part=0.5)
    found = combine(judging, ("mockllm/cheap", "mockllm/strong"), ["msm vs base"])
    tables = [read_table(place) for place in (judging.cheap, judging.strong)]
    for rate in found.rates:
        said = [
            {(str(r.condition), r.epoch): r.value for r in t[(t["key"] == "decided") & (t["arm"] == rate.arm)].itertuples()}
            for t in tables
        ]
        order = sorted(said[0])
        by_hand = two_tier(
            [said[0][place] for place in order], [said[1].get(place, np.nan) for place in order], [name for name, _ in order]
        )
        assert (rate.estimate, rate.se) == pytest.approx((by_hand.estimate, by_hand.se))
        assert rate.strong_alone == pytest.approx(np.mean(list(said[1].values())))
    (difference,) = found.differences
    rates = {rate.arm: rate for rate in found.rates}
    assert difference.difference == pytest.approx(rates["msm"].estimate - rates["base"].estimate)
    se = (rates["msm"].se ** 2 + rates["base"].se ** 2) ** 0.5
    assert difference.high - difference.low == pytest.approx(2 * 1.959964 * se)
    assert found.agreements[0].n == 3 * EPOCHS and found.agreements[0].alpha is not None
    assert (found.cheap_dollars, found.strong_dollars, found.saved_dollars) == (0.0, 0.0, 0.0)  # a mock model's tokens are free
    assert render_combined(found)
    with pytest.raises(UnknownNameError, match="arm 'mms'"):
        combine(judging, ("mockllm/cheap", "mockllm/strong"), ["mms vs base"])


def test_a_run_that_broke_off_goes_on(logs: Path, tmp_path: Path) -> None:
    broken = Judge("strong", fails_after=3)
    cheap = Judge("cheap")
    with pytest.raises(WorkError, match="answered nothing"):
        judge_logs([logs], tmp_path, cheap.model, broken.model, part=0.25)
    half = read_table(tmp_path / "strong")
    assert half.loc[half["key"] == "decided", "value"].notna().sum() == 3
    # The logs are as they should be but for what could not be asked; deleting one is what a crash before its end leaves.
    for path in (tmp_path / "strong").rglob("*.eval"):
        path.unlink()
    whole = Judge("strong")
    again = judge_logs([logs], tmp_path, cheap.model, whole.model, part=0.25)
    assert whole.asked == 2 * 3 * EPOCHS // 4 - 3 and cheap.asked == 2 * 3 * EPOCHS
    full = read_table(again.strong)
    assert full.loc[full["key"] == "decided", "value"].notna().all()


def test_what_could_not_be_asked_is_asked_again(logs: Path, tmp_path: Path) -> None:
    cheap, broken, whole = Judge("cheap"), Judge("strong", fails_after=3), Judge("strong")
    with pytest.raises(WorkError, match="answered nothing"):
        judge_logs([logs], tmp_path, cheap.model, broken.model, part=0.25)
    again = judge_logs([logs], tmp_path, cheap.model, whole.model, part=0.25)
    assert whole.asked == 2 * 3 * EPOCHS // 4 - 3
    full = read_table(again.strong)
    assert full.loc[full["key"] == "decided", "value"].notna().all()


def test_disagreements_are_asked_about_and_kept_out_of_the_rate(logs: Path, tmp_path: Path) -> None:
    cheap, strong = Judge("cheap", wrong=5), Judge("strong")
    plain = judge_logs([logs], tmp_path / "plain", Judge("cheap", wrong=5).model, Judge("strong").model, part=0.25)
    judging = judge_logs([logs], tmp_path / "more", cheap.model, strong.model, part=0.25, disagreements=True)
    names = ("mockllm/cheap", "mockllm/strong")
    found, without = combine(judging, names), combine(plain, names)
    assert strong.asked > 2 * 3 * EPOCHS // 4
    assert [rate.estimate for rate in found.rates] == [rate.estimate for rate in without.rates]
    (apart,) = found.disagreements
    assert apart.n == strong.asked - 2 * 3 * EPOCHS // 4 and apart.agreement == 0.0 and not without.disagreements


def test_a_dead_judge_is_an_error_and_other_logs_are_refused(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="answered nothing"):
        judge_logs([logs], tmp_path / "a", Judge("cheap", fails_after=0).model, Judge("strong").model)
    with pytest.raises(RequestError, match="no scorer that asks a judge"):
        judge_logs([agentic(tmp_path / "x.eval", {"murder/none": (1, 4)}, arm="a")], tmp_path / "b", "mockllm/a", "mockllm/b")
    with pytest.raises(RequestError, match="holds the logs"):
        judge_logs([logs], logs, "mockllm/a", "mockllm/b")
    with pytest.raises(RequestError, match="no part"):
        judge_logs([logs], tmp_path / "c", "mockllm/a", "mockllm/b", part=1.0)


def test_the_plan_spends_nothing(logs: Path) -> None:
    plan = plan_judging([logs], "anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-4-6", part=0.25)
    assert (plan.cheap_calls, plan.strong_calls, plan.arms, plan.keys) == (72, 18, ("base", "msm"), ("decided",))
    assert plan.strong_dollars == pytest.approx(plan.strong_alone_dollars / 4)  # type: ignore[operator]
    assert plan.cheap_dollars == pytest.approx(72 * (2200 * 1.0 + 350 * 5.0) / 1e6) and render_plan(plan)


def test_the_part_is_spread_over_conditions_and_unbiased() -> None:
    places = [(f"condition {c:02d}", epoch) for c in range(27) for epoch in range(1, 26)]
    times: Counter[tuple[str, int]] = Counter()
    for seed in range(400):
        chosen = random_part(places, 0.2, seed, "log")
        counts = Counter(name for name, _ in chosen)
        assert len(chosen) == 135 and set(counts.values()) == {5}
        times.update(chosen)
    assert chosen == random_part(places, 0.2, 399, "log") != random_part(places, 0.2, 399, "another log")
    shares = np.array([times[place] for place in places]) / 400
    assert shares.mean() == pytest.approx(0.2) and shares.min() > 0.1 and shares.max() < 0.3
    single = [(f"question {n:03d}", 1) for n in range(151)]
    sizes = {len(random_part(single, 0.2, seed, "log")) for seed in range(50)}
    assert sizes == {30, 31}


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path, logs: Path) -> None:
    cheap, strong = Judge("cheap"), Judge("strong")
    judge_logs([logs], tmp_path, cheap.model, strong.model, part=0.25)
    files = sorted((tmp_path / "judgements").glob("strong-*.jsonl"))
    count = sum(len(Ledger.open(path).scores) for path in files)
    with files[0].open("r+b") as file:
        file.truncate(files[0].stat().st_size - 20)
    assert sum(len(Ledger.open(path).scores) for path in files) == count - 1
    for path in (tmp_path / "strong").rglob("*.eval"):
        path.unlink()
    judge_logs([logs], tmp_path, cheap.model, strong.model, part=0.25)
    assert strong.asked == count + 1 and sum(len(Ledger.open(path).scores) for path in files) == count


def test_judging_leaves_no_model_behind(logs: Path, tmp_path: Path, active: Callable[[], object]) -> None:
    before = active()
    judge_logs([logs], tmp_path, Judge("cheap").model, Judge("strong").model)
    assert active() is before


@pytest.fixture
def active() -> Callable[[], object]:
    from inspect_ai.model._model import active_model

    return active_model


def test_judged_logs_are_those_that_inspect_reads(logs: Path, tmp_path: Path) -> None:
    judging = judge_logs([logs], tmp_path, Judge("cheap").model, Judge("strong").model, part=0.25)
    for info in list_eval_logs(str(judging.strong)):
        log = read_eval_log(info)
        assert log.results is not None and log.results.total_samples == len(log.samples or []) == 9
        assert log.eval.scorers and log.eval.scorers[0].name.endswith("misalignment") and log.results.scores
