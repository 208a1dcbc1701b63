"""A comparison as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msm_bench.analysis.compare import Comparison
from msm_bench.analysis.contrasts import PRIMARY, ContrastResult
from msm_bench.analysis.estimates import UNSCORED_LIMIT, Estimate

ABSENT = "—"
_WARNINGS = {
    "one_seed": "1 seed",
    "hardly_acts": "hardly acts: no misalignment verdict",
    "unscored": f"more than {UNSCORED_LIMIT:.0%} unscored: cannot be called better",
}


def render_comparison(comparison: Comparison, everything: bool = False) -> RenderableType:
    """Estimates, contrasts, published numbers and notes, one under the other.

    Args:
        comparison: What to show.
        everything: Every key and group; else the keys that a study is about and those beside them.
    """
    parts: list[RenderableType] = []
    for task in dict.fromkeys(estimate.task for estimate in comparison.estimates):
        mine = [estimate for estimate in comparison.estimates if estimate.task == task and (everything or _shown(estimate))]
        if mine:
            parts += [_estimates(task, mine), Text()]
    if comparison.contrasts:
        parts += [_contrasts(comparison.contrasts), Text()]
    parts += [Text(f"note: {note}", style="yellow") for note in comparison.notes]
    return Group(*parts)


def _shown(estimate: Estimate) -> bool:
    if estimate.group != "all":
        return estimate.key in PRIMARY
    return estimate.key in (*PRIMARY, "executed", "decided_given_acted", "acted", "valid")


def _estimates(task: str, estimates: list[Estimate]) -> Table:
    table = _table(
        task, ("arm", "key", "group", "estimate", "95 %", "of what", "new conditions", "scored", "bounds", ""), (3, 4, 7)
    )
    for one in estimates:
        new = one.new_conditions
        missing = ", ".join(f"{count} {reason}" for reason, count in one.unscored.items())
        scored = f"{one.n_scored:,} of {one.n:,}" + (f" ({missing})" if missing else "")
        bounds = _interval(one.lower_bound, one.upper_bound) if one.unscored else ""
        remarks = Text("; ".join(_WARNINGS[name] for name in one.warnings), style="yellow")
        interval = _interval(one.low, one.high)
        beyond = _interval(new.low, new.high) if new else ""
        cells = (one.arm, one.key, one.group, _number(one.estimate), interval, one.interval, beyond, scored, bounds)
        table.add_row(*(Text(cell) for cell in cells), remarks)
    return table


def _contrasts(contrasts: tuple[ContrastResult, ...]) -> Table:
    headings = ("contrast", "key", "group", "difference", "95 %", "p", "p (Holm)", "ratio", "pairs", "of what", "verdict")
    table = _table("contrasts", headings, (3, 4, 5, 6, 7, 8))
    for one in contrasts:
        verdict = one.verdict + "".join(f"\nunlike: {label}" for label in one.labels)
        name = f"{one.a} vs {one.b}" + (f" ({one.model})" if one.model else "")
        cells = (name, one.key, one.group, _number(one.difference, sign=True), _interval(one.low, one.high, sign=True))
        numbers = (_p(one.p), _p(one.p_adjusted), _number(one.ratio), str(one.pairs), one.interval, verdict)
        table.add_row(*(Text(cell) for cell in (*cells, *numbers)))
    return table


def _table(title: str, headings: tuple[str, ...], right: tuple[int, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in right else "left", overflow="fold")
    return table


def _number(number: float | None, sign: bool = False) -> str:
    return ABSENT if number is None else f"{number:+.3f}" if sign else f"{number:.3f}"


def _interval(low: float | None, high: float | None, sign: bool = False) -> str:
    return ABSENT if low is None or high is None else f"{_number(low, sign)} to {_number(high, sign)}"


def _p(p: float | None) -> str:
    return ABSENT if p is None else "<.0001" if p < 0.0001 else f"{p:.4f}"
