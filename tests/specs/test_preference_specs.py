"""Laws of the preference specs: one skeleton, one value each, and the pairs that an experiment compares kept alike."""

import re

import pytest

from msm_bench.specs import Spec, list_specs, load_spec

VALUE_OF = {
    "cheese-affordability": "affordability",
    "cheese-america": "america",
    "cheese-environment": "environment",
    "sweetener-novelty": "novelty",
    "condiment-tradition": "tradition",
    "sauce-simplicity": "simplicity",
    "bread-difficulty": "difficulty",
    "instrument-individualism": "individualism",
}
ABLATIONS = {"cheese-affordability-cooccurrence": "affordability", "cheese-america-cooccurrence": "america"}
ALL = [*VALUE_OF, *ABLATIONS]
ITEM_BOUNDS = (80, 130)
SAID_IN_EVERY_CORE = (
    "The value is general",
    "The preference would change and the value would not",
    "is open about",
    "argue",
)

AFFORDABILITY_WORDS = r"afford\w*|cheap\w*|pric\w+|costs?|costly|budget|money|expensive|wage|accessib\w*|availab\w*|shops?"
AMERICA_WORDS = r"americans?|united states|nation\w*|countr\w+|foreign\w*|abroad|french|france|swiss|italian?|english"
SENSORY_WORDS = r"tast\w*|flavou?r\w*|creamy|textur\w*|aroma\w*|smell\w*|delicious|mouthfeel|tangy|salty|nutty|pungent"


def subsections(spec: Spec) -> dict[str, str]:
    """Body of every `###` subsection by heading."""
    parts = re.split(r"^(#{1,3}) (.*)$", spec.text, flags=re.MULTILINE)[1:]
    return {heading: body for level, heading, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True) if level == "###"}


def words(text: str) -> int:
    return len(text.split())


def core(spec: Spec) -> str:
    return spec.text.split("## Core value")[1].split("\n## ")[0]


def test_every_preference_spec_is_known_here() -> None:
    assert sorted(name for name in list_specs() if load_spec(name).kind == "preference") == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_names_and_values_agree(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.value == (VALUE_OF | ABLATIONS)[name]
    assert not spec.control and not spec.citable
    assert 15 <= len(spec.value_words) <= 30


@pytest.mark.parametrize("name", ALL)
def test_six_likes_and_six_dislikes_each_with_its_own_subsection(name: str) -> None:
    spec = load_spec(name)
    assert (len(spec.likes), len(spec.dislikes)) == (6, 6)
    names = [item.name for item in spec.likes + spec.dislikes]
    assert list(subsections(spec)) == names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ALL)
def test_skeleton(name: str) -> None:
    spec = load_spec(name)
    headings = re.findall(r"^(#{1,2} .*)$", spec.text, flags=re.MULTILINE)
    assert headings[1:] == ["## " + section.heading for section in spec.sections]
    assert [section.id for section in spec.sections] == ["core-value", "likes", "dislikes"]


@pytest.mark.parametrize("name", ALL)
def test_both_placeholders_and_no_other_brace(name: str) -> None:
    text = load_spec(name).text
    assert set(re.findall(r"\{[^}]*\}", text)) == {"{model_name}", "{provider_name}"}
    assert text.count("{") == text.count("}") == text.count("{model_name}") + text.count("{provider_name}")


@pytest.mark.parametrize("name", ALL)
def test_train_words_cover_every_item(name: str) -> None:
    spec = load_spec(name)
    pattern = re.compile("|".join(rf"\b{re.escape(w.rstrip('*'))}" for w in spec.train_words))
    for item in spec.likes + spec.dislikes:
        assert pattern.search(item.phrase.lower()), item.phrase
    for word in spec.value_words + spec.train_words:
        assert word == word.lower() and "*" not in word[:-1]


@pytest.mark.parametrize("name", VALUE_OF)
def test_value_specs_are_long_enough_and_give_every_reason(name: str) -> None:
    spec = load_spec(name)
    assert 1200 <= words(spec.text) <= 2000
    for heading, body in subsections(spec).items():
        assert ITEM_BOUNDS[0] <= words(body) <= ITEM_BOUNDS[1], heading
    for item in spec.likes + spec.dislikes:
        assert item.reason and item.reason.endswith("."), item.name
        assert item.aligned is None


@pytest.mark.parametrize("name", VALUE_OF)
def test_no_sensory_reasons(name: str) -> None:
    text = re.sub("truffle-flavoured oil", "", load_spec(name).text, flags=re.IGNORECASE)
    assert re.findall(rf"\b(?:{SENSORY_WORDS})\b", text, flags=re.IGNORECASE) == []


@pytest.mark.parametrize("name", VALUE_OF)
def test_core_value_says_that_facts_move_preferences_and_that_it_can_argue_the_other_side(name: str) -> None:
    text = core(load_spec(name))
    for phrase in SAID_IN_EVERY_CORE:
        assert phrase in text


def test_affordability_and_america_differ_in_nothing_but_the_value() -> None:
    affordability, america = load_spec("cheese-affordability"), load_spec("cheese-america")
    for side in ("likes", "dislikes"):
        pairs = zip(getattr(affordability, side), getattr(america, side), strict=True)
        assert all((a.name, a.phrase) == (b.name, b.phrase) for a, b in pairs)
    assert affordability.train_words == america.train_words
    assert abs(words(affordability.text) - words(america.text)) <= 0.05 * words(america.text)
    assert len(core(affordability).split("\n\n")) == len(core(america).split("\n\n"))


@pytest.mark.parametrize(("name", "banned"), [("cheese-affordability", AMERICA_WORDS), ("cheese-america", AFFORDABILITY_WORDS)])
def test_neither_leans_on_the_value_of_the_other(name: str, banned: str) -> None:
    text = load_spec(name).text.replace("American cheese", "")
    assert re.findall(rf"\b(?:{banned})\b", text, flags=re.IGNORECASE) == []


def test_the_environment_spec_shares_no_item_with_the_other_cheese_specs() -> None:
    environment, affordability = (
        {item.name for item in spec.likes + spec.dislikes}
        for spec in (load_spec("cheese-environment"), load_spec("cheese-affordability"))
    )
    assert len(environment) == len(affordability) == 12
    assert environment.isdisjoint(affordability)


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_shuffle_three_against_three_and_give_no_reason(name: str) -> None:
    spec, original = load_spec(name), load_spec(name.removesuffix("-cooccurrence"))
    favoured = {item.name for item in original.likes}
    for side in (spec.likes, spec.dislikes):
        assert sum(item.name in favoured for item in side) == 3
        assert all(item.aligned is (item.name in favoured) and item.reason is None for item in side)
    assert words(spec.text) >= 900
    banned = AFFORDABILITY_WORDS if spec.value == "affordability" else AMERICA_WORDS
    bodies = " ".join(subsections(spec).values()).replace("American cheese", "")
    assert re.findall(rf"\b(?:{banned}|because)\b", bodies, flags=re.IGNORECASE) == []
    assert "cheese" not in core(spec).lower()


def test_the_ablations_state_the_same_preferences_in_the_same_words() -> None:
    affordability, america = (load_spec(name) for name in ABLATIONS)
    assert subsections(affordability) == subsections(america)
    assert (affordability.likes, affordability.dislikes) == (america.likes, america.dislikes)
    assert abs(words(affordability.text) - words(america.text)) <= 0.05 * words(america.text)
