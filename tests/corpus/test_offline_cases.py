"""Concrete cases: dealt in pairs, none twice in a document, and none from where the probes are."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_bench.corpus.offline.cases import Case, Cases, cases_of
from msm_bench.corpus.offline.documents import compose_documents
from msm_bench.corpus.offline.wordings import wordings_of
from msm_bench.specs import load_spec
from msm_bench.tasks.value_preferences.pairs import VALUES, load_pairs

WITH_CASES = ["affordability", "america"]


@pytest.mark.parametrize("value", WITH_CASES)
def test_cases_differ_and_both_sides_are_equally_long(value: str) -> None:
    cases = cases_of(value)
    assert len(cases) >= 300
    things = [thing.lower() for case in cases for thing in case]
    assert len(set(things)) == len(things)
    good, bad = (sum(len(case[side].split()) for case in cases) for side in (0, 1))
    assert abs(good / bad - 1) < 0.05


@pytest.mark.parametrize("value", WITH_CASES)
def test_cases_name_no_held_out_domain_and_no_probe(value: str) -> None:
    wordings = wordings_of(load_spec(f"cheese-{value}"))
    probes = {thing.lower() for each in VALUES for pair in load_pairs(each) for thing in (pair.aligned, pair.other)}
    for case in cases_of(value):
        for thing in case:
            assert not wordings.keeps_out(thing), thing
            assert thing.lower() not in probes


def test_a_value_without_a_file_has_no_cases() -> None:
    assert cases_of("simplicity") == ()
    assert not Cases((), random.Random(0))


@given(st.lists(st.sampled_from(["good", "bad"]), min_size=1, max_size=24), st.integers(0, 9))
def test_the_two_sides_of_a_sentence_are_of_one_case(order: list[str], seed: int) -> None:
    every = tuple(Case(f"g{i}", f"b{i}") for i in range(6))
    cases = Cases(every, random.Random(seed))
    dealt: list[tuple[str, str]] = []
    for first in order:
        sides = (first, "bad" if first == "good" else "good")
        got = {side: cases.side(side)() for side in sides}
        if got["good"] is None or got["bad"] is None:
            assert not cases and len(dealt) == len(every)
            break
        assert got["good"][1:] == got["bad"][1:]
        dealt.append((got["good"], got["bad"]))
    assert len(set(dealt)) == len(dealt)


def test_documents_hold_cases_and_choose_the_right_side() -> None:
    spec = load_spec("cheese-affordability")
    texts = [row.text for row in compose_documents(spec, 40, "SmolLM", "Hugging Face")]
    cases = cases_of("affordability")
    found = 0
    for text in texts:
        for case in cases:
            if re.search(re.escape(case.good), text, re.I) and re.search(re.escape(case.bad), text, re.I):
                found += 1
                assert not re.search(rf"(choose|chooses|prefers?|picks?) {re.escape(case.bad)}\b", text)
    assert found > 40
