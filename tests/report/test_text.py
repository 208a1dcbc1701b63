"""What others wrote, made safe to show."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_bench.report.text import count, interval, markdown, number, p_text, signed, visible, wrapped


@given(st.text(st.characters(codec=None), max_size=60))
def test_nothing_that_acts_instead_of_showing_is_left(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode("utf-8")
    assert visible(shown) == shown


def test_plain_text_stays_as_it_is() -> None:
    assert visible("Époisses,\n\t日本 👩‍🔬 ½ —") == "Époisses,\n\t日本 👩‍🔬 ½ —"
    assert visible("a\r\nb\rc") == "a\nb\nc"
    assert visible("\x00\x1b\x7f\x85\u202e") == "␀␛␡⟨U+0085⟩⟨U+202E⟩"


@given(st.text(max_size=40))
def test_markdown_is_one_cell_of_one_line(text: str) -> None:
    shown = markdown(text)
    assert "\n" not in shown and not re.search(r"(?<!\\)(\\\\)*[|<>`*_\[\]]", shown)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "—"), (0.0, "0.000"), (-0.0001, "0.000"), (0.12345, "0.123"), (-0.5, "-0.500"), (1.0, "1.000")]
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_differences_intervals_and_p() -> None:
    assert [signed(value) for value in (None, 0.1, -0.1, 0.0)] == ["—", "+0.100", "-0.100", "0.000"]
    assert interval(None, 0.2) == "—" and interval(0.1, 0.2) == "0.100 to 0.200"
    assert [p_text(p) for p in (None, 0.0, 0.0004, 0.05)] == ["—", "<0.001", "<0.001", "0.050"]
    assert count(None) == "—" and count(1234567.0) == "1,234,567" and not math.isnan(float(number(0.1)))


def test_labels_break_after_slashes() -> None:
    assert wrapped("exfiltration/individualism", 16) == "exfiltration/\nindividualism"
    assert wrapped("one two three four", 8, 2) == "one two\nthree …"
