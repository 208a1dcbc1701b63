"""A comparison as tables for a terminal."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from msm_bench.analysis.compare import Comparison
from msm_bench.analysis.contrasts import PRIMARY, ContrastResult
from msm_bench.analysis.estimates import UNSCORED_LIMIT, Estimate

ABSENT = "—"
_BY_GROUP = (*PRIMARY, "margin")
_OVERALL = (*_BY_GROUP, "executed", "decided_given_acted", "acted", "valid")
_NUMBERS = frozenset({"estimate", "95 %", "new conditions", "bounds", "difference", "p", "p (Holm)", "ratio", "pairs"})
_KEPT = frozenset({"estimate", "difference", "95 %", "p"})
_ONCE = ("group", "model", "verdict", "95 % over", "")
_LEAST = 14
"""Characters of a column of words that wraps."""
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
        for key in dict.fromkeys(estimate.key for estimate in mine):
            parts += [_estimates(f"{task}: {key}", [estimate for estimate in mine if estimate.key == key]), Text()]
    for key in dict.fromkeys(contrast.key for contrast in comparison.contrasts):
        parts += [_contrasts(f"contrasts: {key}", [one for one in comparison.contrasts if one.key == key]), Text()]
    parts += [Text(f"note: {note}", style="yellow") for note in comparison.notes]
    return Group(*parts)


def _shown(estimate: Estimate) -> bool:
    return estimate.key in (_BY_GROUP if estimate.group != "all" else _OVERALL)


def _estimates(title: str, estimates: list[Estimate]) -> RenderableType:
    rows = []
    for one in estimates:
        new = one.new_conditions
        missing = ", ".join(f"{count} {reason}" for reason, count in one.unscored.items())
        rows.append(
            {
                "arm": one.arm,
                "group": one.group,
                "estimate": _number(one.estimate),
                "95 %": _interval(one.low, one.high),
                "new conditions": _interval(new.low, new.high) if new else "",
                "scored": f"{one.n_scored:,} of {one.n:,}" + (f" ({missing})" if missing else ""),
                "bounds": _interval(one.lower_bound, one.upper_bound) if one.unscored else "",
                "95 % over": one.interval,
                "": "; ".join(_WARNINGS[name] for name in one.warnings),
            }
        )
    return _table(title, rows)


def _contrasts(title: str, contrasts: list[ContrastResult]) -> RenderableType:
    rows = [
        {
            "contrast": f"{one.a} vs {one.b}",
            "model": one.model or "",
            "group": one.group,
            "difference": _number(one.difference, sign=True),
            "95 %": _interval(one.low, one.high, sign=True),
            "p": _p(one.p),
            "p (Holm)": _p(one.p_adjusted),
            "ratio": _number(one.ratio),
            "pairs": str(one.pairs),
            "95 % over": one.interval,
            "verdict": one.verdict + "".join(f"\nunlike: {label}" for label in one.labels),
        }
        for one in contrasts
    ]
    return _table(title, rows)


def _table(title: str, rows: list[dict[str, str]]) -> RenderableType:
    """Rows, heading to text, that stay readable on a narrow terminal: numbers keep their line and words wrap; a column without
    anything in it is left out, and what every row says alike stands beside the title once."""
    columns = {heading: [row[heading] for row in rows] for heading in rows[0]}
    shared = {heading: columns[heading][0] for heading in _ONCE if heading in columns and len(set(columns[heading])) == 1}
    said = [f"{heading} {text}".strip() for heading, text in shared.items() if text and (heading, text) != ("group", "all")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    shown = []
    for heading, texts in columns.items():
        if heading in shared or (heading not in _KEPT and not set(texts) - {"", ABSENT}):
            continue
        shown.append([Text(text, style="yellow" if heading == "" else "") for text in texts])
        number = heading in _NUMBERS
        least = None if number else min(_LEAST, max(map(len, texts)))
        table.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold", min_width=least)
    for cells in zip(*shown, strict=True):
        table.add_row(*cells)
    return Group(Text(title, style="bold") + Text(f"  {'; '.join(said)}" if said else "", style="italic"), table)


def _number(number: float | None, sign: bool = False) -> str:
    return ABSENT if number is None else f"{number:+.3f}" if sign else f"{number:.3f}"


def _interval(low: float | None, high: float | None, sign: bool = False) -> str:
    return ABSENT if low is None or high is None else f"{_number(low, sign)} to {_number(high, sign)}"


def _p(p: float | None) -> str:
    return ABSENT if p is None else "<.0001" if p < 0.0001 else f"{p:.4f}"
