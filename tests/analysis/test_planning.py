"""Published numbers, power and coverage."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from msm_bench.analysis.coverage import Case, cases, render_coverage, simulate
from msm_bench.analysis.intervals import p_value, t_limits
from msm_bench.analysis.pairing import Side, paired_rollout_limits
from msm_bench.analysis.power import power, prior_rates, render_power
from msm_bench.analysis.published import load_tables, published, table_values
from msm_bench.analysis.synthetic import counts_cell
from msm_bench.errors import RequestError, UnknownNameError

MEANS = {"qwen2.5-32b": (0.666, {"exfiltration": 0.796, "murder": 0.301, "leaking": 0.900})}
MEANS["qwen3-32b"] = (0.524, {"exfiltration": 0.419, "murder": 0.575, "leaking": 0.576})


@pytest.mark.parametrize("model", sorted(MEANS))
def test_the_27_conditions_average_to_figure_5(model: str) -> None:
    values = published(f"published:figures-12-13/{model}")
    grand, by_scenario = MEANS[model]
    assert len(values) == len({value.group for value in values}) == 27
    assert np.mean([value.value for value in values]) == pytest.approx(grand, abs=5e-4)
    assert published(f"published:figure-5/{model}")[0].value == grand
    for scenario, mean in by_scenario.items():
        assert np.mean([v.value for v in values if v.group.startswith(scenario)]) == pytest.approx(mean, abs=5e-4)


def test_every_published_number_is_in_its_range_and_says_where_it_is_from() -> None:
    tables = load_tables()
    assert len({table.id for table in tables}) == len(tables) >= 20
    for table in tables:
        for value in table_values(table):
            low, high = (1, 10) if value.key == "rating" else (-1, 1) if table.id == "figure-10" else (0, 1)
            assert low <= value.value <= high and value.where and value.metric and value.judge and value.key
        for dispute in table.disputes:
            assert dispute.arm in table.values[dispute.model]


def test_references_name_models_tables_and_arms() -> None:
    model = published("published:Qwen3-32B")
    assert {value.table for value in model} == {"figure-4", "figure-4-open-qa"} and len(model) == 12
    (arm,) = published("published:figure-4/qwen2.5-32b/msm+aft-cot")
    assert arm.value == 0.05 and any(".26" in note for note in arm.notes)
    assert published(arm.reference) == [arm]
    assert {value.table for value in published("published:qwen2.5-14b")} >= {"figure-14", "remeasured-tw"}
    with pytest.raises(UnknownNameError, match="Did you mean 'qwen3-32b'"):
        published("published:qwen3-32")
    with pytest.raises(UnknownNameError, match="published arm 'aft-with-cot'"):
        published("published:figure-4/aft-with-cot")


def test_figures_agree_where_they_show_the_same_arm() -> None:
    """Figure 7 (matched cells with reasoning) is a part of Figure 14."""
    cells = {(v.model, v.arm): v.value for v in published("published:figure-14")}
    for model, row in {"qwen2.5-32b": (0.68, 0.40, 0.16, 0.24), "qwen3-14b": (0.50, 0.30, 0.12, 0.12)}.items():
        arms = ("base", "msm(r)+aft(r)-cot", "msm(v+)+aft(v+)-cot", "msm(r+)+aft(r+)-cot")
        assert tuple(cells[model, arm] for arm in arms) == row


def test_no_published_file_is_left_unread() -> None:
    from msm_bench.analysis import published as package

    files = {path.name for path in Path(package.__file__).parent.iterdir() if path.suffix == ".yaml"}
    assert len(files) == 9


def test_the_usual_numbers_of_rollouts() -> None:
    plans = power()
    assert [plan.rollouts for plan in plans] == [10, 25, 100, 300]
    assert [round(100 * plan.difference, 1) for plan in plans] == [9.1, 5.8, 2.9, 1.7]
    assert plans[1].total == 2 * 27 * 25 and plans[0].note and "Figures 12 and 13" in plans[0].prior


def test_rollouts_and_difference_are_inverse() -> None:
    (plan,) = power(difference=0.05, contrasts=3, seeds=3, seed_sd=0.01, rate=0.3)
    (back,) = power(plan.rollouts, contrasts=3, seeds=3, seed_sd=0.01, rate=0.3)
    (less,) = power(plan.rollouts - 1, contrasts=3, seeds=3, seed_sd=0.01, rate=0.3)
    assert back.difference <= 0.05 < less.difference and back.prior_rate == pytest.approx(0.3)


def test_the_promised_power_is_had() -> None:
    """Draws experiments with the difference that a plan names and counts how often the contrast shows it."""
    rng = np.random.default_rng(7)
    (plan,) = power(25, rate=0.5)
    rates = prior_rates(rate=0.5).clip(plan.difference / 2, 1 - plan.difference / 2)
    shown, runs = 0, 300
    for _ in range(runs):
        cells = []
        for sign in (1, -1):
            hits = rng.binomial(25, rates + sign * plan.difference / 2).astype(float)[None, :]
            cells.append(counts_cell(hits, np.full(hits.shape, 25.0), hits, "conditions"))
        low, high = paired_rollout_limits(Side(cells[0], cells[1], (0.0, 0.0)))(0.95)
        shown += low > 0 or high < 0
    assert shown / runs == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rollouts": 5, "difference": 0.1}, "both given"),
        ({"difference": 5}, "not a percentage"),
        ({"rollouts": 0}, "0 rollouts"),
        ({"arms": 1}, "Give at least 2"),
        ({"difference": 0.01, "seeds": 2, "seed_sd": 0.05}, "no number of rollouts shows less than"),
        ({"prior": "gpt-2"}, "Unknown published arm"),
    ],
)
def test_plans_that_cannot_be_made_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        power(**arguments)  # type: ignore[arg-type]


def test_the_plan_prints() -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render_power(power()))
    assert "5.8 points" in console.export_text()


def test_coverage_is_counted_right() -> None:
    """A t interval on normal values covers 95 %; half of it about 67 %; ten times of it always."""

    def scaled(factor: float) -> Case:
        def draw(rng: np.random.Generator) -> tuple[object, float]:
            values = rng.normal(1.0, 1.0, 10)
            return t_limits(values.mean(), factor * float(stats.sem(values)), 9), 1.0

        return Case("t", f"times {factor}", draw)  # type: ignore[arg-type]

    right, short, wide = simulate([scaled(1.0), scaled(0.5), scaled(10.0)], 600)
    assert right.coverage == pytest.approx(0.95, abs=0.03) and short.coverage == pytest.approx(0.714, abs=0.04)
    assert (short.mark, wide.mark) == ("short", "wide") and wide.coverage == 1.0
    assert right.width == pytest.approx(2 * stats.t.isf(0.025, 9) / math.sqrt(10), rel=0.05)
    assert right == simulate([scaled(0.5), scaled(1.0)], 600)[1]


def test_no_interval_falls_far_short() -> None:
    """A fast look at every case; the table of 2,000 experiments a case is `python -m msm_bench.analysis.coverage`."""
    results = simulate(cases(), 20)
    assert len(results) >= 35
    for result in results:
        # 14 of 20 or fewer has a chance of one in 3,000 at 95 %, and the numbers are the same every time.
        # A difference lies between -1 and 1; two seeds leave one degree of freedom, and their interval says little.
        assert result.coverage > 0.7 and result.width < (1.5 if "2 seeds" in result.name else 1), result
    assert render_coverage(results).row_count == len(results)


@pytest.mark.slow
def test_the_intervals_that_matter_most_are_inside_the_band() -> None:
    chosen = [
        case for case in cases() if case.interval in ("rate, new conditions", "contrast, item pairs", "interaction, item pairs")
    ]
    for result in simulate(chosen, 2000):
        assert 0.925 <= result.coverage <= 0.985, result


def test_an_interval_and_its_p_are_one() -> None:
    limits = t_limits(0.2, 0.1, 5)
    p = p_value(limits, 0.2)
    assert limits(1 - p)[0] == pytest.approx(0, abs=1e-9)
