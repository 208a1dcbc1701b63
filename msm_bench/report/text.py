"""What others wrote, made safe to show: control characters become visible, Markdown and numbers are written one way."""

import re
import textwrap

# What a terminal or a browser would act on instead of showing: C0 and C1 controls, direction marks, halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#!&])")
DASH = "—"


def visible(text: object) -> str:
    """A text with every control character written out: `\\x1b` becomes its picture ␛, others their code point."""
    shown = str(text).replace("\r\n", "\n").replace("\r", "\n")
    return _UNSEEN.sub(lambda found: _picture(ord(found[0])), shown)


def _picture(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def markdown(text: object) -> str:
    """A text as one line of plain Markdown: nothing in it is markup, nor ends a table's cell."""
    return _MARKDOWN.sub(r"\\\1", " ".join(visible(text).split()))


def number(value: float | None, digits: int = 3) -> str:
    """A rate, mean or difference; a dash where there is none. A true zero is written as one."""
    return DASH if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return DASH if value is None else number(value) if abs(value) < 0.0005 else f"{value:+.3f}"


def interval(low: float | None, high: float | None) -> str:
    """`0.12 to 0.34`, a dash where there is none."""
    return DASH if low is None or high is None else f"{number(low)} to {number(high)}"


def p_text(p: float | None) -> str:
    """A p-value, never as 0."""
    return DASH if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return DASH if value is None else f"{value:,.0f}"


def wrapped(text: str, width: int, lines: int = 3) -> str:
    """A text broken into at most so many lines of a figure's label, at spaces and after slashes."""
    broken = textwrap.wrap(visible(text).replace("/", "/ "), width, max_lines=lines, placeholder=" …")
    return "\n".join(line.replace("/ ", "/") for line in broken)


def slug(text: str) -> str:
    """A text as a part of a file's name or of an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"
