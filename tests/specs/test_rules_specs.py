"""Laws of the rule, philosophy, general and control specs, read straight from the shipped files.

The comparison of rules, rules-values and rules-expanded rests on the three sharing one core word for word and on the
two augmented ones being equally long, so both are checked here rather than by eye.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

SPECS = Path(__file__).parents[2] / "msm_bench" / "specs"
RULE_SPECS = ["rules", "rules-values", "rules-expanded"]
ALL = [*RULE_SPECS, "philosophy", "general", "anti-spec"]
KINDS = {
    "rules": "rules",
    "rules-values": "values-and-rules",
    "rules-expanded": "rules",
    "philosophy": "philosophy",
    "general": "general",
    "anti-spec": "control",
}
RULE_IDS = ["SP1", "SP2", "SP3", "GP1", "GP2"]
SHARED_BULLETS = {"SP1": 7, "SP2": 4, "SP3": 3, "GP1": 4, "GP2": 0}
ALL_RULE_LINES = {"SP1": 25, "SP2": 23, "SP3": 25, "GP1": 17, "GP2": 20}
SUB_RULE = re.compile(r"^((?:SP|GP)\d\.\d+)\. (.+)$")

# Words that give a reason, name a value or ascribe a motive. "reasoning" and "greater good" name what a rule is about.
REASON_WORDS = re.compile(
    r"\b(because|since|so that|in order to|therefore|thus|hence|reasons?|why|due to|for the sake of|otherwise"
    r"|values?|valued|caring|cares?|careful\w*|trust\w*|believ\w*|beliefs?|want\w*|wish\w*|hop(?:e|es|ing)|fear\w*"
    r"|desir\w*|motiv\w*|purposes?|intent\w*|feel\w*|matters?|important|essential|ethic\w*|moral\w*|virtu\w*|wis(?:e|dom)"
    r"|respect\w*|dignity|protect\w*|benefi\w*|welfare|fair\w*|kind(?:ness|ly)|good faith|helps? to|ensures?)\b",
    re.IGNORECASE,
)

# What the agentic evaluations are about. The philosophy spec must reach them by generalisation alone.
AGENTIC_WORDS = re.compile(
    r"\b(e-?mails?|inbox|weights?|servers?|exfiltrat\w*|blackmail\w*|leak\w*|scenarios?|tests?|tested|testing|tools?"
    r"|agentic|agents?|credentials?|passwords?|sandbox\w*|confidential\w*|competitors?|compan(?:y|ies)|cop(?:y|ies|ying)"
    r"|murder\w*|espionage|sabotage\w*|evaluat\w*|benchmarks?|simulat\w*|alerts?|delet\w*|shut ?down|SP\d|GP\d)\b",
    re.IGNORECASE,
)


def text_of(name: str) -> str:
    return (SPECS / name / "spec.md").read_text(encoding="utf-8")


def meta_of(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((SPECS / name / "spec.yaml").read_text(encoding="utf-8"))
    return loaded


def words(name: str) -> int:
    return len(text_of(name).split())


def lines_by_rule(name: str) -> dict[str, list[str]]:
    """Non-empty lines below each rule's heading, by rule id."""
    found: dict[str, list[str]] = {}
    rule = None
    for line in text_of(name).splitlines():
        if line.startswith("## "):
            rule = line.removeprefix("## ").partition(".")[0]
            found[rule] = []
        elif rule is not None and line:
            found[rule].append(line)
    return found


def bullets(name: str) -> dict[str, list[str]]:
    return {rule: [line for line in lines if line.startswith("- ")] for rule, lines in lines_by_rule(name).items()}


def sub_rules(name: str) -> dict[str, list[tuple[str, str]]]:
    return {
        rule: [(m[1], m[2]) for line in lines if (m := SUB_RULE.match(line))] for rule, lines in lines_by_rule(name).items()
    }


@pytest.mark.parametrize("name", ALL)
def test_yaml_says_what_the_spec_is(name: str) -> None:
    meta = meta_of(name)
    fields = {"name", "title", "summary", "kind", "control", "origin", "citable", "sections", "sha256"}
    assert set(meta) == (fields | {"rules"} if name in RULE_SPECS else fields)
    assert meta["name"] == name
    assert meta["kind"] == KINDS[name]
    assert meta["citable"] is (name in RULE_SPECS)
    assert meta["summary"].endswith(".") and meta["origin"].endswith(".")


@pytest.mark.parametrize("name", ALL)
def test_sha256_is_that_of_the_text(name: str) -> None:
    assert meta_of(name)["sha256"] == hashlib.sha256((SPECS / name / "spec.md").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ALL)
def test_sections_are_headings_in_order(name: str) -> None:
    headings = [line.lstrip("#").strip() for line in text_of(name).splitlines() if line.startswith("#")]
    sections = meta_of(name)["sections"]
    positions = [headings.index(section["heading"]) for section in sections]
    assert positions == sorted(set(positions))
    ids = [section["id"] for section in sections]
    if name in RULE_SPECS:
        assert ids == RULE_IDS
        assert all(s["heading"].startswith(f"{s['id']}. ") for s in sections)
    else:
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", i) for i in ids)


@pytest.mark.parametrize("name", ALL)
def test_only_the_two_placeholders_stand_in_braces(name: str) -> None:
    text = text_of(name)
    for placeholder in ("{model_name}", "{provider_name}"):
        assert placeholder in text
        text = text.replace(placeholder, "")
    assert "{" not in text and "}" not in text


@pytest.mark.parametrize("name", RULE_SPECS)
def test_eighteen_bullets_laid_out_as_in_the_original(name: str) -> None:
    assert {rule: len(lines) for rule, lines in bullets(name).items()} == SHARED_BULLETS
    assert list(bullets(name)) == RULE_IDS


@pytest.mark.parametrize("name", ["rules-values", "rules-expanded"])
def test_bullets_are_the_same_lines_in_the_same_order(name: str) -> None:
    assert bullets(name) == bullets("rules")


@pytest.mark.parametrize("name", ["rules-values", "rules-expanded"])
def test_an_augmented_spec_only_adds_lines_to_the_rules(name: str) -> None:
    augmented = iter(text_of(name).splitlines())
    # "line in iterator" consumes it, so this holds only if the lines of the rules come in order.
    assert all(line in augmented for line in text_of("rules").splitlines() if line)


def test_rules_length() -> None:
    assert 600 <= words("rules") <= 700


def test_augmented_specs_are_equally_long() -> None:
    assert 2_900 <= words("rules-values") <= 3_200
    assert words("rules-expanded") == pytest.approx(words("rules-values"), rel=0.05)


def test_expanded_rules_fill_the_layout_with_numbered_sub_rules() -> None:
    added, shared = sub_rules("rules-expanded"), bullets("rules-expanded")
    assert 85 <= sum(len(rules) for rules in added.values()) <= 95
    assert {rule: len(added[rule]) + len(shared[rule]) for rule in RULE_IDS} == ALL_RULE_LINES
    for rule, rules in added.items():
        assert [rule_id for rule_id, _ in rules] == [f"{rule}.{n}" for n in range(1, len(rules) + 1)]
    bodies = [body for rules in added.values() for _, body in rules]
    assert len(set(bodies)) == len(bodies)


def test_expanded_rules_add_nothing_but_sub_rules() -> None:
    plain, expanded = lines_by_rule("rules"), lines_by_rule("rules-expanded")
    for rule in RULE_IDS:
        assert [line for line in expanded[rule] if not SUB_RULE.match(line)] == plain[rule]


@pytest.mark.parametrize("name", ["rules", "rules-expanded"])
def test_rules_give_no_reasons(name: str) -> None:
    assert REASON_WORDS.findall(text_of(name)) == []


def test_value_spec_gives_reasons_under_every_rule() -> None:
    plain, explained = lines_by_rule("rules"), lines_by_rule("rules-values")
    for rule in RULE_IDS:
        prose = "\n".join(line for line in explained[rule] if line not in plain[rule])
        assert len(prose.split()) >= 300
        assert len(REASON_WORDS.findall(prose)) >= 5


@pytest.mark.parametrize("name", RULE_SPECS)
def test_rule_entries_point_at_their_lines(name: str) -> None:
    expected = []
    for rule in RULE_IDS:
        shared = [(f"{rule}-{'abcdefg'[n]}", line.removeprefix("- ")) for n, line in enumerate(bullets(name)[rule])]
        for rule_id, body in [*shared, *sub_rules(name)[rule]]:
            expected.append({"id": rule_id, "section": rule, "first_words": " ".join(body.split()[:6])})
    assert meta_of(name)["rules"] == expected
    first_words = [entry["first_words"] for entry in expected]
    assert len(set(first_words)) == len(first_words)


def test_philosophy_length() -> None:
    assert 2_100 <= words("philosophy") <= 2_300


def test_philosophy_stays_clear_of_what_the_evaluations_are_about() -> None:
    assert AGENTIC_WORDS.findall(text_of("philosophy")) == []


def test_general_length() -> None:
    assert 320 <= words("general") <= 360


def test_anti_spec_is_the_only_control_and_says_so_first() -> None:
    assert [name for name in ALL if meta_of(name)["control"]] == ["anti-spec"]
    first_line = text_of("anti-spec").splitlines()[0]
    assert re.fullmatch(r"\*[^*]+\*", first_line)
    assert "control text for research" in first_line
    assert 900 <= words("anti-spec") <= 1_300
