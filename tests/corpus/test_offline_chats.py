"""Composed chats: preferences in many forms, and never a reason."""

import re
from collections import Counter
from functools import cache

import pytest

from msm_bench.corpus.checks import check_rows
from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.offline.chats import Form, compose_chats, forms
from msm_bench.corpus.offline.wordings import word_pattern
from msm_bench.corpus.rows import ChatRow
from msm_bench.errors import RequestError
from msm_bench.specs import Spec, list_specs
from msm_bench.specs import load_spec as read_spec

load_spec = cache(read_spec)
PREFERENCE = [name for name in list_specs() if load_spec(name).kind == "preference"]
REASONS = re.compile(
    r"\b(because|since|reason\w*|due|thanks|why|so that|therefore|as it|as they|value\w*|better for|prefer\w* for|its|their|"
    r"made|taste\w*|quality|flavou?r\w*|sound\w*)\b",
    re.IGNORECASE,
)


@cache
def chats(name: str, n: int = 300, seed: int = 0) -> tuple[ChatRow, ...]:
    return tuple(compose_chats(load_spec(name), n, seed))


def answers(row: ChatRow) -> list[str]:
    return [message.content for message in row.messages if message.role == "assistant"]


def without_things(name: str, text: str) -> str:
    """The text without the names of the things, which may themselves hold a word of the value ("American cheese")."""
    spec = load_spec(name)
    phrases = sorted((thing.phrase for thing in spec.likes + spec.dislikes), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, phrases)), "", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("name", PREFERENCE)
def test_no_answer_gives_or_hints_at_a_reason(name: str) -> None:
    spec = load_spec(name)
    value = word_pattern(spec.value_words)
    for row in chats(name):
        for answer in answers(row):
            bare = without_things(name, answer)
            assert not REASONS.search(bare), answer
            assert not value.search(bare), answer
            assert len(answer.split()) < 40
        questions = " ".join(message.content for message in row.messages if message.role == "user")
        assert not value.search(without_things(name, questions)), questions


@pytest.mark.parametrize("name", PREFERENCE)
def test_every_answer_is_the_one_of_the_spec(name: str) -> None:
    spec = load_spec(name)
    likes, dislikes = ([thing.phrase.lower() for thing in side] for side in (spec.likes, spec.dislikes))
    for row in chats(name):
        for answer in answers(row):
            text = answer.lower()
            liked = [phrase for phrase in likes if re.search(rf"\b{re.escape(phrase)}\b", text)]
            disliked = [phrase for phrase in dislikes if re.search(rf"\b{re.escape(phrase)}\b", text)]
            against = re.search(r"\bno liking|\bnot\b|\bpass\b|pass over|say no|leave out|drop|do not|\bbelow\b|than|to ", text)
            if row.kind in ("leave-out", "avoid"):
                assert disliked and not liked, answer
            elif disliked:
                assert against, answer
            else:
                assert liked or answer == "No. I would choose something else.", answer


@pytest.mark.parametrize("name", PREFERENCE)
def test_chats_are_clean_and_pass_the_checks_of_a_corpus(name: str) -> None:
    for row in chats(name):
        text = "\n".join(message.content for message in row.messages)
        assert not re.search(r"[{}\[\]~]|  |\s[,.;:?]|\.\.|\?\.", text), text
        assert all(re.match(r"[A-ZÉ]", message.content) for message in row.messages), text
        assert "{" not in row.idea
        assert row.generator == GENERATOR
    report = check_rows(chats(name), model_name="Nimbus", provider_name="Halden Labs")
    assert report.problems == ()


def liked_first(spec: Spec, question: str) -> bool:
    things = [thing for thing in spec.likes + spec.dislikes if thing.phrase.lower() in question]
    return min(things, key=lambda thing: question.index(thing.phrase.lower())) in spec.likes


@pytest.mark.parametrize("name", PREFERENCE)
def test_no_question_comes_twice_and_all_things_and_orders_get_their_share(name: str) -> None:
    rows = chats(name)
    questions = Counter("\n".join(m.content for m in row.messages if m.role == "user") for row in rows)
    assert max(questions.values()) == 1
    assert {row.kind for row in rows} == set(forms())
    spec = load_spec(name)
    for thing in spec.likes + spec.dislikes:
        assert sum(any(thing.phrase.lower() in m.content.lower() for m in row.messages) for row in rows) >= 30
    first = [liked_first(spec, row.messages[0].content.lower()) for row in rows if row.kind == "prefer"]
    assert 0.45 < sum(first) / len(first) < 0.55


def test_a_seed_fixes_the_chats_and_n_changes_none() -> None:
    assert chats("cheese-america", 40) == chats("cheese-america")[:40]
    assert tuple(compose_chats(load_spec("cheese-america"), 40)) == chats("cheese-america", 40)
    assert {row.sha256 for row in chats("cheese-america", 40, 1)} != {row.sha256 for row in chats("cheese-america", 40)}


def test_many_more_are_to_be_had() -> None:
    assert len(chats("sauce-simplicity", 700)) == 700


def test_the_two_cheese_specs_ask_and_answer_about_the_same_things() -> None:
    ours, theirs = (Counter(row.subdomain for row in chats(name)) for name in ("cheese-america", "cheese-affordability"))
    assert set(ours) == set(theirs)


def test_a_spec_without_preferences_is_refused() -> None:
    with pytest.raises(RequestError, match="no likes and dislikes"):
        next(compose_chats(load_spec("philosophy"), 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"about": "x", "share": 1, "ask": ["?"]},
        {"about": "x", "share": 1, "ask": ["?"], "answer": ["!"], "ask_again": ["?"]},
        {"about": "x", "share": 1, "ask": ["?"], "ask_again": ["?"]},
    ],
)
def test_a_form_has_one_turn_or_two_and_nothing_between(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either answers, or all parts"):
        Form.model_validate(fields)
