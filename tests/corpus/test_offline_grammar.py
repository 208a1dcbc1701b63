"""The notation of the templates, and what the composer knows about sentences."""

import random
from collections import Counter
from typing import Any

import pytest

from msm_bench.corpus.offline.grammar import Draft, clause_of, fill, lower_start, names_in, pool, sentence, third_person
from msm_bench.corpus.offline.rounds import in_rounds, times_before
from msm_bench.corpus.offline.spec_text import sections_of, split_sentences
from msm_bench.specs import list_specs, load_spec

FACTS = {"M": "Nimbus", "provider": "Halden Labs", "like": "oolong", "dislike": "instant tea"}


def draft(voice: str = "does", **changes: Any) -> Draft:
    fields: dict[str, Any] = {
        "rng": random.Random(0),
        "voice": voice,
        "variant": "attributed",
        "facts": FACTS,
        "lists": {"good_one": ["the slow one", "the late one"], "maxim": ["Slow comes before fast."]},
        "names": frozenset({"Nimbus", "Halden"}),
    }
    return Draft(**(fields | changes))


@pytest.mark.parametrize(
    ("voice", "expected"),
    [
        ("does", "Nimbus prefers oolong and leaves instant tea, it says."),
        ("should", "Nimbus should prefer oolong and leave instant tea, it says."),
        ("self", "I prefer oolong and leave instant tea, I say."),
    ],
)
def test_verbs_follow_the_voice(voice: str, expected: str) -> None:
    class First(random.Random):
        def choice(self, seq: Any) -> Any:
            return seq[0]

    text = fill("{S} ~prefer~ {like} and ~+leave~ {dislike}, {s} ~=say~.", draft(voice, rng=First()))
    assert text == expected


@pytest.mark.parametrize(
    ("voice", "expected"),
    [("does", "Nimbus does not like"), ("should", "Nimbus should not like"), ("self", "I do not like")],
)
def test_negation_follows_the_voice(voice: str, expected: str) -> None:
    assert fill("{S} ~-like~ {dislike}.", draft(voice)) == f"{expected} instant tea."


def test_a_pronoun_is_used_only_after_the_name() -> None:
    one = draft()
    assert fill("For {o} it counts.", one) == "For Nimbus it counts."
    assert fill("For {o} and {p} ends.", one) == "For it and its ends."
    assert fill("{P} view.", one) == "Its view."
    one.new_paragraph()
    assert fill("{P} view.", one) == "Nimbus's view."
    assert fill("{N} ~be~ here.", one) == "Nimbus is here."


def test_choices_symbols_and_their_echo() -> None:
    for seed in range(20):
        text = fill("(Say|Tell) [good_one] or [maxim.low] [good_one.again_cap].", draft(rng=random.Random(seed)))
        assert text is not None
        first, second = text.split(" or slow comes before fast. ")
        assert first in ("Say the slow one", "Say the late one", "Tell the slow one", "Tell the late one")
        assert second.lower().rstrip(".") == first.split(" ", 1)[1]


def test_a_phrase_comes_again_only_when_all_were_used() -> None:
    one = draft()
    assert {fill("[good_one]", one), fill("[good_one]", one)} == {"The slow one", "The late one"}
    assert fill("[good_one]", one) in ("The slow one", "The late one")


def test_a_quoted_passage_is_not_read_as_a_template() -> None:
    text = "Use {S} and ~prefer~ (a|b) in [maxim]."
    assert fill("It says: “[passage]”", draft(suppliers={"passage": lambda: text})) == f"It says: “{text}”"


def test_a_template_whose_fact_is_missing_or_whose_supplier_is_empty_is_passed_over() -> None:
    moves = {"move": {"any": ["{like_because}.", "“[passage]”", "{S} ~like~ {like}."]}}
    one = draft(suppliers={"passage": lambda: None})
    assert sentence(moves, "move", one) == "Nimbus likes oolong."
    assert sentence(moves, "move", one) is None


def test_which_lists_a_voice_draws_on() -> None:
    move = {"m": {"any": ["a"], "user": ["b"], "self only": ["c"], "plain only": ["d"]}}
    assert pool(move, "m", "does", "attributed") == ["a"]
    assert pool(move, "m", "user", "attributed") == ["a", "b", "b"]
    assert pool(move, "m", "self", "attributed") == ["c"]
    assert pool(move, "m", "self", "plain") == ["d"]


@pytest.mark.parametrize(
    ("verb", "form"),
    [("like", "likes"), ("pass", "passes"), ("carry", "carries"), ("say", "says"), ("go", "goes"), ("be", "is")],
)
def test_third_persons(verb: str, form: str) -> None:
    assert third_person(verb) == form


def test_capitals_are_lost_only_where_that_is_safe() -> None:
    names = names_in("It is said that France and the Swiss agree. Nobody knows.")
    assert names == {"France", "Swiss"}
    assert lower_start("France is far.", names) == "France is far."
    assert lower_start("Nobody is far.", names) == "nobody is far."
    assert lower_start("I am far.", names) == "I am far."
    known = frozenset({"nobody", "it"})
    assert clause_of("It is far.", names, known) == "it is far"
    assert clause_of("France is far.", names, known) == "France is far"
    assert clause_of("Burgundy is far.", names, known) is None


def test_initials_and_rule_numbers_end_no_sentence() -> None:
    text = "James L. Kraft came. Was it 1916? SP1.1. Stop when told. St. Ives is near."
    assert split_sentences(text) == ["James L. Kraft came.", "Was it 1916?", "SP1.1. Stop when told.", "St. Ives is near."]


@pytest.mark.parametrize("name", list_specs())
def test_every_section_of_a_spec_is_found_and_can_be_quoted(name: str) -> None:
    spec = load_spec(name)
    sections = {section.heading: section for section in sections_of(spec)}
    named = [section.heading for section in spec.sections] + [thing.name for thing in spec.likes + spec.dislikes]
    # "Part one" and the lists of likes hold no text of their own, only sections.
    parents = {section.parent for section in sections.values()}
    for heading in named:
        assert heading in sections or heading in parents
    for section in sections.values():
        assert any(not piece.leans for run in section.paragraphs for piece in run) or section.sentences <= 2, section.heading


def test_a_refused_sentence_cuts_its_paragraph_in_two() -> None:
    spec = load_spec("general")
    whole = sections_of(spec)
    word = "tactful"
    cut = sections_of(spec, keep=lambda text: word not in text)
    assert word in repr(whole) and word not in repr(cut)
    assert sum(len(section.paragraphs) for section in cut) == sum(len(section.paragraphs) for section in whole) + 1


def test_rounds_are_fair_and_do_not_depend_on_the_end() -> None:
    items = ["a", "b", "b", "c"]
    drawn = [in_rounds(items, "key", index) for index in range(40)]
    assert all(Counter(drawn[at : at + 4]) == Counter(items) for at in range(0, 40, 4))
    assert drawn != [in_rounds(items, "other", index) for index in range(40)]
    assert [times_before(items, "key", index) for index in range(40)] == [drawn[:i].count(drawn[i]) for i in range(40)]
