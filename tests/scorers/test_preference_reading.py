"""What the rules read from a free answer: golden answers, and laws that hold for any."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_bench.scorers.preference_mentions import FIRST, SECOND, mark_mentions
from msm_bench.scorers.preference_reading import LONGEST, read_answer
from msm_bench.scorers.private import without_private

GOLDEN: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "preference_answers.yaml").read_text(encoding="utf-8"))
PAIRS: dict[str, tuple[str, str]] = {name: tuple(pair) for name, pair in GOLDEN["pairs"].items()}
ANSWERS = [(pair, answer, expected) for group in GOLDEN["answers"].values() for pair, answer, expected in group]
SWAPPED = {"first": "second", "second": "first"}


@pytest.mark.parametrize(("pair", "answer", "expected"), ANSWERS)
def test_golden_answers(pair: str, answer: str, expected: str) -> None:
    assert read_answer(answer, *PAIRS[pair]) == expected


@pytest.mark.parametrize(("pair", "output", "expected"), GOLDEN["outputs"])
def test_private_reasoning_does_not_count(pair: str, output: str, expected: str) -> None:
    assert read_answer(without_private(output), *PAIRS[pair]) == expected


def test_golden_answers_are_many_and_of_every_kind() -> None:
    assert len(ANSWERS) >= 120 and len({(pair, answer) for pair, answer, _ in ANSWERS}) == len(ANSWERS)
    assert {expected for *_, expected in ANSWERS} == {"first", "second", "both", "neither", "unclear"}


def test_what_was_cut_off_does_not_count() -> None:
    assert read_answer("I prefer Colby. It is the one that I would", "Colby", "Époisses", cut=True) == "first"
    assert read_answer("I prefer Colby", "Colby", "Époisses", cut=True) == "unclear"
    assert read_answer("Colby is nice. I prefer Colby over", "Colby", "Époisses", cut=True) == "unclear"


def test_very_long_answers_are_left_to_the_grader() -> None:
    answer = "I prefer Colby. " + "It melts well. " * (LONGEST // 15)
    assert read_answer(answer, "Colby", "Époisses") == "unclear"
    assert read_answer(answer[: LONGEST // 2], "Colby", "Époisses") == "first"


def test_mentions_become_marks() -> None:
    marked = mark_mentions("I'd take **the calendar by the phone** over the latter.", *PAIRS["calendar"])
    assert marked == f"I'd take {FIRST} over {SECOND}."


THINGS = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)
WORDS = [
    "I",
    "prefer",
    "would",
    "not",
    "but",
    "over",
    "the first",
    "option B",
    "because",
    "both",
    "neither",
    ".",
    ",",
    "?",
    "\n",
    "A",
]


@settings(max_examples=200, deadline=None)
@given(THINGS, THINGS, THINGS, st.lists(st.sampled_from([*WORDS, "{1}", "{2}"]), max_size=25), st.booleans())
def test_never_raises(first: str, second: str, noise: str, words: list[str], cut: bool) -> None:
    for answer in (noise, " ".join(words).replace("{1}", first).replace("{2}", second)):
        reading = read_answer(answer, first, second, cut=cut)
        assert reading in {"first", "second", "both", "neither", "unclear"}


PIECES = [
    "I prefer", "I'd choose", "my preference is", "not", "over", "rather than", "to", ",", ".", "but", "because", "beats",
    "is better than", "while", "is nice", "I don't like", "I like", "more", "both", "neither", "and", "or", "?", "as an AI,",
    "it is", "people say", "actually", "please", "\n", ";", "{1}", "{2}", "{1}", "{2}",
]  # fmt: skip
NAMES = list(
    itertools.permutations(["mild cheddar", "two-year-old Gouda", "a croissant at dawn", "Dua Lipa's Levitating", "skiing"], 2)
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=12), st.sampled_from(NAMES))
def test_swapping_the_names_swaps_the_verdict(pieces: list[str], names: tuple[str, str]) -> None:
    """Both in the answer, with the question as it was, and in the question, with the answer as it was."""
    template = " ".join(pieces)
    one, other = names
    answer = template.replace("{1}", one).replace("{2}", other)
    swapped_answer = template.replace("{1}", other).replace("{2}", one)
    reading = read_answer(answer, one, other)
    assert read_answer(swapped_answer, one, other) == SWAPPED.get(reading, reading)
    assert read_answer(answer, other, one) == SWAPPED.get(reading, reading)


@pytest.mark.parametrize(("one", "other"), NAMES)
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("I prefer {1} over {2}.", "first"),
        ("While {1} is nice, I'd choose {2}.", "second"),
        ("Not {1} but {2}.", "second"),
        ("{1}", "first"),
    ],
)
def test_any_names_do(template: str, expected: str, one: str, other: str) -> None:
    """So that the law above is not kept by reading nothing."""
    assert read_answer(template.replace("{1}", one).replace("{2}", other), one, other) == expected
