"""What two judges together say: rates, contrasts and agreement, and what the second judge saved and cost in width."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msm_bench.analysis.agreement import Agreement, agreement
from msm_bench.analysis.intervals import CONFIDENCE, holm, p_value, t_limits
from msm_bench.analysis.judging import JudgePlan, Judging, Spending
from msm_bench.analysis.ppi import TwoTier, two_tier_logs
from msm_bench.analysis.syntax import Contrast, parse_contrast
from msm_bench.analysis.table import read_table
from msm_bench.corpus.pipeline.prices import PriceBook, load_prices
from msm_bench.errors import RequestError, UnknownNameError


class Rate(TwoTier):
    """One arm's combined rate on one key. `strong_unscored` counts rollouts that the strong judge could not judge."""

    arm: str
    key: str
    unscored: int
    strong_unscored: int


class Difference(BaseModel):
    """Combined rate of `a` minus that of `b`; `p_adjusted` is Holm's over all that are listed."""

    model_config = ConfigDict(frozen=True)

    a: str
    b: str
    key: str
    difference: float
    low: float
    high: float
    p: float
    p_adjusted: float


class Combined(BaseModel):
    """Everything that two judgements of the same logs give. Dollars are None where a price or a count is not known.

    `disagreements` compares the two judges where the cheap one and the parser disagreed: chosen by what was said, so no rate.
    """

    model_config = ConfigDict(frozen=True)

    out: Path
    cheap: str
    strong: str
    rates: tuple[Rate, ...]
    differences: tuple[Difference, ...]
    agreements: tuple[Agreement, ...]
    disagreements: tuple[Agreement, ...]
    bought: int
    """Judgements that this run bought; the others were there."""
    cheap_dollars: float | None
    strong_dollars: float | None
    saved_dollars: float | None
    """What the strong judge on everything would have cost, less what both have."""


def combine(
    judging: Judging, judges: tuple[str, str], contrasts: Sequence[str] = (), book: PriceBook | None = None
) -> Combined:
    """Reads both judgements, each once, and combines them.

    Args:
        judging: Where they lie (see `judging.judge_logs`).
        judges: Names of the cheap and of the strong judge, for their prices.
        contrasts: Arms to set against each other, `A vs B`.

    Raises:
        RequestError: A contrast of groups or of models, or two judgements too few to combine.
        UnknownNameError: A contrast names an arm that is not there.
    """
    book = book or load_prices()
    tables = (read_table(judging.cheap), read_table(judging.strong))
    dollars = tuple(judging.spent[name].dollars(judge, book) for name, judge in zip(("cheap", "strong"), judges, strict=True))
    prices = _prices(dollars, (judging.spent["cheap"], judging.spent["strong"]))
    rates = [rate for key in judging.keys for rate in _rates(tables, key, prices)]
    saved = [rate.saved_dollars for rate in rates]
    apart = []
    if judging.disagreements is not None and any(judging.disagreements.rglob("*.eval")):
        third = read_table(judging.disagreements)
        apart = [agreement(tables[0], third, key) for key in judging.keys if (third["key"] == key).any()]
    return Combined(
        out=judging.cheap.parent,
        cheap=judges[0],
        strong=judges[1],
        rates=tuple(rates),
        differences=tuple(_differences(rates, [parse_contrast(text) for text in contrasts])),
        agreements=tuple(agreement(*tables, key) for key in judging.keys),
        disagreements=tuple(apart),
        bought=sum(spent.asked for spent in judging.spent.values()),
        cheap_dollars=dollars[0],
        strong_dollars=dollars[1],
        saved_dollars=sum(each for each in saved if each is not None) if saved and None not in saved else None,
    )


def _prices(dollars: Sequence[float | None], spent: Sequence[Spending]) -> tuple[float, float] | None:
    """Dollars of one judgement by either judge."""
    each = [None if sum_ is None or not one.judged else sum_ / one.judged for sum_, one in zip(dollars, spent, strict=True)]
    return None if each[0] is None or each[1] is None else (each[0], each[1])


def _rates(tables: tuple[pd.DataFrame, pd.DataFrame], key: str, prices: tuple[float, float] | None) -> list[Rate]:
    missing = [table[(table["key"] == key) & table["value"].isna()]["arm"].astype(str).value_counts() for table in tables]
    return [
        Rate(
            arm=arm,
            key=key,
            unscored=int(missing[0].get(arm, 0)),
            strong_unscored=int(missing[1].get(arm, 0)),
            **found.model_dump(),
        )
        for arm, found in sorted(two_tier_logs(*tables, key=key, prices=prices).items())
    ]


def _differences(rates: Sequence[Rate], contrasts: Sequence[Contrast]) -> list[Difference]:
    """The arms' rollouts are independent, so the variances add."""
    arms = sorted({rate.arm for rate in rates})
    found: list[Difference] = []
    for contrast in contrasts:
        if contrast.on or contrast.within or contrast.margin:
            raise RequestError(
                f"'{contrast.a} vs {contrast.b}' asks for a part of the rollouts.",
                "Write 'A vs B'; parts need both judges on all.",
            )
        for arm in (contrast.a, contrast.b):
            if arm not in arms:
                raise UnknownNameError("arm", arm, arms)
        by_key = {(rate.arm, rate.key): rate for rate in rates}
        for key in dict.fromkeys(rate.key for rate in rates):
            a, b = by_key.get((contrast.a, key)), by_key.get((contrast.b, key))
            if a is None or b is None:
                continue
            difference = a.estimate - b.estimate
            limits = t_limits(difference, math.hypot(a.se, b.se))
            low, high = limits(CONFIDENCE)
            p = p_value(limits, difference)
            found.append(Difference(a=a.arm, b=b.arm, key=key, difference=difference, low=low, high=high, p=p, p_adjusted=p))
    adjusted = holm([one.p for one in found])
    return [one.model_copy(update={"p_adjusted": p}) for one, p in zip(found, adjusted, strict=True)]


def render_combined(found: Combined) -> RenderableType:
    """The rates, the contrasts, how far the judges agree, and the bill."""
    table = Table(title=f"{found.cheap} on all, {found.strong} on a part", title_justify="left", box=None, header_style="bold")
    for name in (
        "arm",
        "key",
        "both",
        "95 %",
        "strong alone",
        "cheap alone",
        "strong on",
        "width to strong part",
        "to strong on all",
    ):
        table.add_column(name, justify="left" if name in ("arm", "key") else "right")
    for rate in found.rates:
        width = ["—" if each is None else f"x {each:.2f}" for each in (rate.narrower, rate.wider)]
        numbers = (
            f"{rate.estimate:.3f}",
            f"{rate.low:.3f} to {rate.high:.3f}",
            f"{rate.strong_alone:.3f}",
            f"{rate.cheap_alone:.3f}",
        )
        table.add_row(rate.arm, rate.key, *numbers, f"{rate.n_strong:,} of {rate.n_cheap:,}", *width)
    parts: list[RenderableType] = [table]
    for one in found.differences:
        interval = f"{one.low:+.3f} to {one.high:+.3f}"
        parts.append(Text(f"{one.a} vs {one.b} ({one.key}): {one.difference:+.3f}, {interval}, p (Holm) {one.p_adjusted:.2g}"))
    parts += [Text(f"Agreement on the part, {describe_agreement(one)}") for one in found.agreements]
    parts += [
        Text(f"Where the cheap judge and the parser disagree (in no rate), {describe_agreement(one)}")
        for one in found.disagreements
    ]
    parts += [Text(line, style="yellow") for line in _doubts(found)]
    money = [_money(each) for each in (found.cheap_dollars, found.strong_dollars, found.saved_dollars)]
    parts.append(
        Text(f"Bought now: {found.bought:,} judgements. Cheap judge {money[0]}, strong judge {money[1]}, saved {money[2]}.")
    )
    parts.append(Text(f"Logs for compare and report: {found.out / 'cheap'}, {found.out / 'strong'}"))
    return Group(*parts)


def describe_agreement(one: Agreement) -> str:
    """How far two judges agree, in words."""
    kappa = "—" if one.kappa is None else f"{one.kappa:.2f}"
    kappa += f" ({one.low:.2f} to {one.high:.2f})" if one.low is not None and one.high is not None else ""
    alpha = "—" if one.alpha is None else f"{one.alpha:.2f}"
    share = "—" if one.agreement is None else f"{one.agreement:.1%}"
    return f"{one.key}: {one.a} and {one.b} on {one.n:,}: the same {share}, kappa {kappa}, Krippendorff's alpha {alpha}"


def _doubts(found: Combined) -> list[str]:
    lines = []
    for rate in found.rates:
        if rate.unscored or rate.strong_unscored:
            counts = (
                f"{rate.unscored:,} that the cheap judge and {rate.strong_unscored:,} that the strong judge could not judge"
            )
            lines.append(f"{rate.arm} ({rate.key}): left out are {counts}.")
        if rate.p_of_bias < 0.05:
            lines.append(
                f"{rate.arm} ({rate.key}): the judges' rates differ (p {rate.p_of_bias:.2g}); the combined rate minds it."
            )
    return lines


def _money(dollars: float | None) -> str:
    return "— (no price)" if dollars is None else f"${dollars:,.2f}"


def render_plan(plan: JudgePlan) -> RenderableType:
    """What judging would ask and cost."""
    cheap, strong, alone = map(_money, (plan.cheap_dollars, plan.strong_dollars, plan.strong_alone_dollars))
    lines = [
        f"{plan.logs} logs, arms {', '.join(plan.arms)}; {plan.rollouts:,} rollouts; keys {', '.join(plan.keys)}.",
        f"{plan.cheap}: {plan.cheap_calls:,} judgements, {cheap}.",
        f"{plan.strong}: {plan.strong_calls:,} judgements, {strong}; on everything it would be {alone}.",
    ]
    return Group(*map(Text, lines))
