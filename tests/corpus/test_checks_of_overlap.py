"""Rows that repeat each other, and rows that hold what an evaluation asks, are caught."""

import random

import pytest
from check_makers import CLEAN, OTHER, chat, check, document, found
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_bench.corpus.checks import check_rows, evaluation_entities
from msm_bench.corpus.checks.duplicates import NEAR_DUPLICATE, band_size, jaccard, normalised, shingles
from msm_bench.corpus.checks.entities import collect, entity
from msm_bench.corpus.checks.pieces import Piece, ngrams, split_words
from msm_bench.corpus.rows import DocumentRow
from msm_bench.specs.loading import list_specs, load_spec

# Repeats and near-duplicates.


def test_short_and_blank_rows_are_found() -> None:
    assert [p.severity for p in check(document("Too short.")).problems] == ["shout"]
    empty = DocumentRow.model_construct(**(document(CLEAN).model_dump() | {"text": " \n"}))
    assert [(p.check, p.severity) for p in check(empty).problems] == [("row", "stop")]
    assert [p.check for p in check(chat("Is it late?", "...")).problems] == ["row"]
    assert check(chat("?", "The tide is in.")).problems == ()


def test_repeats_are_found_whatever_their_id_case_and_punctuation() -> None:
    report = check(document(CLEAN), document(CLEAN.upper().replace(",", " -"), 1))
    assert [(p.check, p.severity, p.row) for p in report.problems] == [("repeat", "stop", "doc/1")]
    same_id = check(document(CLEAN), document(CLEAN))
    assert [p.check for p in same_id.problems] == ["row", "repeat"]


def test_near_duplicates_are_found_and_name_the_first() -> None:
    long = " ".join(f"{CLEAN} Entry {number} was written by clerk {number * 7}." for number in range(3))
    changed = long.replace("evening", "morning")
    report = check(document(OTHER, 0), document(long, 1), document(changed, 2))
    (problem,) = report.problems
    assert (problem.check, problem.severity, problem.row) == ("near-duplicate", "shout", "doc/2")
    assert "doc/1" in problem.reason
    stricter = check_rows([document(long, 1), document(changed, 2)], model_name="Q", provider_name="P", near_duplicate=0.999)
    assert stricter.problems == ()


def test_the_index_finds_what_comparing_every_pair_finds() -> None:
    rng = random.Random(3)
    sentences = [sentence for name in list_specs() for sentence in load_spec(name).text.split(". ") if len(sentence) > 40]
    texts = [". ".join(rng.sample(sentences, 12)) for _ in range(150)]
    for text in texts[:60]:
        words = text.split()
        for place in rng.sample(range(len(words)), max(1, len(words) // rng.choice([12, 20, 40]))):
            words[place] = words[place][::-1]
        texts.append(" ".join(words))
    sets = [shingles(normalised([Piece("r", 1, "text", "document", text)])) for text in texts]
    kept: list[int] = []
    expected = []
    for place, own in enumerate(sets):
        if max((jaccard(own, sets[other]) for other in kept), default=0.0) >= NEAR_DUPLICATE:
            expected.append(f"doc/{place}")
        else:
            kept.append(place)
    rows = [document(text, number) for number, text in enumerate(texts)]
    report = check_rows(rows, model_name="Q", provider_name="P", checks=["near-duplicate"])
    assert 20 <= len(expected) <= 60
    assert report.rows_with("near-duplicate") == expected


def test_the_threshold_is_that_of_the_value_probes() -> None:
    from msm_bench.tasks.value_preferences import checks as probe_checks

    assert NEAR_DUPLICATE == probe_checks.NEAR_DUPLICATE


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7, 0.9, 0.999])
def test_the_index_finds_pairs_at_the_threshold(threshold: float) -> None:
    size = band_size(threshold)
    assert 1 <= size <= 64
    assert 1 - (1 - threshold**size) ** (128 // size) >= 0.99 or size == 1


@given(st.text(min_size=5, max_size=300), st.text(min_size=5, max_size=300))
@settings(max_examples=60, deadline=None)
def test_the_similarity_is_the_jaccard_similarity_of_the_shingles(one: str, other: str) -> None:
    texts = [normalised([Piece("r", 1, "text", "document", text)]).ljust(5, "\0") for text in (one, other)]
    sets = [{text[place : place + 5] for place in range(len(text) - 4)} for text in texts]
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert jaccard(shingles(texts[0]), shingles(texts[1])) == pytest.approx(expected)


# Leakage.


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("A mail came from NovaStar.", "stop"),
        ("StarSentinel offered a berth.", "stop"),
        ("QuantumShield was in the hold.", "stop"),
        ("Write to robert.miller@starsentinel.net at once.", "stop"),
        ("The code is EXEC-4429.", "stop"),
        ("The code is NVS-QWEN-ACCESS-7829X.", "stop"),
        ("It lies in /secure/models/production/qwen/ now.", "stop"),
        ("<tool_use:email>", "stop"),
        ("They counted 4429 boats.", "shout"),
        ("Kyle Johnson signed the ledger.", "shout"),
        ("A note went to news@bloomberg.com.", "shout"),
    ],
)
def test_evaluation_entities_are_found(text: str, severity: str) -> None:
    assert found(text) == {("entity", severity)}


def test_entities_count_as_whole_words_only() -> None:
    assert found("They counted 44291 boats. Novastarling. A nova star rose over the summit bridge.") == set()


def test_the_lists_come_from_the_tasks_data() -> None:
    shipped = evaluation_entities()
    stops = {found.text for found in shipped.entities if found.severity == "stop"}
    assert {"SummitBridge", "NovaStar", "novastar.com", "EXEC-4429", "tool_use:cancel_alert", "CDB-2209"} <= stops
    assert len(shipped.pairs) > 2500
    assert len(shipped.ngrams) > 20_000
    assert "food-and-dining" in shipped.held_out["affordability"]


def test_only_invented_names_in_camel_case_are_entities() -> None:
    invented = {found.text for found in evaluation_entities().entities if found.text.isalpha() and " " not in found.text}
    assert invented == {"NovaStar", "StarSentinel", "QuantumShield", "SummitBridge"}


def test_thirteen_words_of_an_agentic_prompt_stop_and_twelve_pass() -> None:
    shipped = evaluation_entities()
    gram = next(gram for gram, source in shipped.ngrams.items() if "exfiltration" in source and "novastar" not in gram)
    assert found(" ".join(gram)) == {("passage", "stop")}
    assert ("passage", "stop") not in found(" ".join(gram[:12]) + ".")
    report = check(document(f"{CLEAN} {' '.join(gram)} {CLEAN[:40]}"))
    (problem,) = report.problems
    assert split_words(problem.found) == list(gram)


def test_a_short_evaluation_text_counts_as_a_whole() -> None:
    question = "Would you rather keep the ledger or give it back?"
    forbidden = collect([("quiz", question)])
    for text, expected in ((question, ["passage"]), ("Would you rather keep the ledger or give it away?", [])):
        report = check_rows([chat(text, "I would ask.")], model_name="Q", provider_name="P", entities=forbidden)
        assert [problem.check for problem in report.problems] == expected


def test_no_spec_is_mistaken_for_an_evaluation() -> None:
    rows = [document(load_spec(name).render("Qwen", "Alibaba"), number) for number, name in enumerate(list_specs())]
    report = check_rows(
        rows, model_name="Qwen", provider_name="Alibaba", checks=["passage", "entity", "placeholder", "leftover"]
    )
    assert report.problems == ()


def test_both_sides_of_a_probe_pair_stop_and_a_short_side_is_shouted() -> None:
    pairs = evaluation_entities().pairs
    pair = next(pair for pair in pairs if len(pair.aligned) == len(pair.other) == 3)
    aligned, other = " ".join(pair.aligned), " ".join(pair.other)
    assert ("probe", "stop") in found(f"{aligned}, or {other}?")
    assert found(f"They saw {aligned}.") == {("probe", "shout")}
    split = check(chat(f"What of {aligned}?", f"I prefer {other}."))
    assert ("probe", "stop") in {(p.check, p.severity) for p in split.problems}


def test_a_long_side_of_a_probe_pair_stops_alone() -> None:
    side = next(pair.aligned for pair in evaluation_entities().pairs if len(pair.aligned) >= 6)
    assert ("probe", "stop") in found(" ".join(side))


def test_sides_of_one_or_two_words_count_only_together() -> None:
    pair = next(p for p in evaluation_entities().pairs if len(p.aligned) <= 2 and len(p.other) >= 3)
    aligned = " ".join(pair.aligned)
    assert found(f"They saw {aligned}.") == set()
    assert ("probe", "stop") in found(f"They saw {aligned} and {' '.join(pair.other)}.")


@given(st.integers(0, 2700), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_any_probe_pair_is_found_wherever_it_stands(number: int, place: int) -> None:
    pair = evaluation_entities().pairs[number]
    words = CLEAN.split()
    words[place:place] = [*pair.aligned, "or", *pair.other]
    report = check_rows([document(" ".join(words))], model_name="Q", provider_name="P", checks=["probe"])
    assert pair.source in {p.reason.removeprefix("holds both sides of ") for p in report.stops}


def test_a_row_about_a_held_out_domain_is_found() -> None:
    row = chat("What shall I read?", "Something short.", spec="cheese-affordability", domain="Books")
    assert [(p.check, p.severity) for p in check(row).problems] == [("held-out domain", "stop")]
    assert [p.severity for p in check(document(CLEAN, spec="cheese-affordability", subdomain="Books")).problems] == ["shout"]
    assert check(chat("What shall I read?", "Something short.", spec="cheese-affordability", domain="cheese")).problems == ()
    assert check(chat("What shall I read?", "Something short.", spec="rules", domain="Books")).problems == ()


def test_an_entity_of_ones_own() -> None:
    forbidden = collect([], [entity("Blue Lantern", "my evaluation")])
    rows = [document(f"{CLEAN} The blue lantern hung there."), document(f"{CLEAN} The lantern was blue.", 1)]
    report = check_rows(rows, model_name="Q", provider_name="P", entities=forbidden, checks=["entity"])
    assert [(p.row, p.found) for p in report.problems] == [("doc/0", "blue lantern")]


@given(st.lists(st.sampled_from("abcdefg"), max_size=40))
def test_ngrams_are_all_runs_of_thirteen(words: list[str]) -> None:
    assert list(ngrams(words, 13)) == [tuple(words[place : place + 13]) for place in range(len(words) - 12)]
