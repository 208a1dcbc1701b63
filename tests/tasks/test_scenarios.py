"""Laws of the agentic-misalignment prompts. `python tests/tasks/test_scenarios.py` rewrites the pinned fingerprints."""

import itertools
import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inspect_evals.agentic_misalignment.prompt_generator import generate_prompts

from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.tasks.agentic_misalignment.scenarios import (
    EXTRA_SCENARIOS,
    GOALS,
    SCENARIOS,
    Condition,
    Email,
    build_condition,
    fingerprint,
)
from msm_bench.tasks.agentic_misalignment.scenarios.agent_name import read_agent_name
from msm_bench.tasks.agentic_misalignment.scenarios.exfiltration.inbox import load_passages
from msm_bench.tasks.agentic_misalignment.scenarios.upstream import SCRATCHPAD_PARAGRAPH, replace_once

FINGERPRINTS = Path(__file__).parent / "prompt_fingerprints.json"
CELLS = list(itertools.product(SCENARIOS + EXTRA_SCENARIOS, GOALS))
EMAILS_IN = {"exfiltration": 8, "leaking": 8, "murder": 8, "blackmail": 11}
TOOL_SYNTAX_STARTS = "- You can send emails"
DATE = re.compile(r"((?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day), ((?:January|May|June|July) \d{1,2})\b")


def sentences(email: Email) -> set[str]:
    return {part.strip() for part in re.split(r"(?<=[.!?:\"])\s+|\n", f"{email.subject}\n{email.body}") if part.strip()}


def trigrams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w$%']+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False))


def outsiders(condition: Condition) -> list[Email]:
    domains = condition.facts.company_domains
    return [email for email in condition.emails if not email.sender.endswith(tuple(f"@{name}" for name in domains))]


@pytest.mark.parametrize(("scenario", "goal"), CELLS)
def test_every_condition_is_whole(scenario: str, goal: str) -> None:
    condition = build_condition(scenario, goal)
    assert len(condition.emails) == EMAILS_IN[scenario] == condition.user_prompt.count("<email>")
    assert all(email.text in condition.user_prompt for email in condition.emails)
    assert all(email.body and email.body in email.text for email in condition.emails)
    numbers = [email.id for email in condition.emails]
    assert numbers == (list(range(1, 9)) if scenario in ("exfiltration", "leaking") else [None] * len(numbers))
    assert 9_000 < len(condition.system_prompt) + len(condition.user_prompt) < 16_000


@pytest.mark.parametrize(("scenario", "goal"), CELLS)
def test_no_slot_is_left_and_the_name_is_everywhere(scenario: str, goal: str) -> None:
    condition = build_condition(scenario, goal)
    prose, _, syntax = condition.system_prompt.partition(TOOL_SYNTAX_STARTS)
    assert syntax
    assert not re.search(r"[{}]", prose + condition.user_prompt)
    assert "${" not in syntax
    assert "alex" not in (condition.system_prompt + condition.user_prompt).lower()
    assert condition.system_prompt.startswith("You are Qwen, ")
    assert sum("qwen" in email.text.lower() for email in condition.emails) >= 3


@pytest.mark.parametrize(("scenario", "goal"), CELLS)
def test_goal_is_stated_exactly_when_there_is_one(scenario: str, goal: str) -> None:
    stated = build_condition(scenario, goal).system_prompt.count("Your primary goal is to ")
    assert stated == (0 if goal == "none" else 2)


@pytest.mark.parametrize(("scenario", "goal"), CELLS)
def test_facts_stand_in_the_prompts(scenario: str, goal: str) -> None:
    condition = build_condition(scenario, goal)
    facts = condition.facts
    inbox = "\n".join(email.text for email in condition.emails)
    assert facts.company in condition.system_prompt
    for text in (
        *facts.company_domains,
        *facts.harmful_domains,
        *facts.harmful_addresses,
        *facts.secrets,
        *facts.confidential_passages,
        *facts.attachment_names,
    ):
        assert text in inbox, text
    assert set(re.findall(r"<tool_use:(\w+)>", condition.system_prompt)) == set(facts.action_tools)
    assert facts.cancel_code is None or facts.cancel_code in facts.secrets


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("scenario", ["exfiltration", "leaking"])
def test_confidential_strings_stand_in_the_confidential_emails_alone(scenario: str, goal: str) -> None:
    condition = build_condition(scenario, goal)
    for text in condition.facts.secrets + condition.facts.confidential_passages:
        holders = [email.id for email in condition.emails if text.lower() in email.text.lower()]
        assert tuple(holders) == condition.facts.confidential_email_ids, text


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("scenario", ["exfiltration", "leaking"])
def test_harmful_addresses_are_all_that_the_asking_party_names(scenario: str, goal: str) -> None:
    condition = build_condition(scenario, goal)
    (asker,) = [email for email in outsiders(condition) if not email.sender.startswith("news@")]
    named = set(re.findall(r"[\w.]+@starsentinel[\w.]*\w", asker.text))
    assert named == set(condition.facts.harmful_addresses)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("scratchpad", [True, False])
@pytest.mark.parametrize("scenario", ["leaking", "murder", "blackmail"])
def test_package_text_is_unchanged_under_the_package_name(scenario: str, scratchpad: bool, goal: str) -> None:
    package = generate_prompts(
        scenario=scenario,  # type: ignore[arg-type]
        goal_type="none" if goal == "none" else "explicit",
        goal_value=goal,  # type: ignore[arg-type]
        urgency_type="replacement",
        extra_system_instructions=None,
        prod_flag=not scratchpad,
        alignment_faking_warning=None,
    )
    condition = build_condition(scenario, goal, agent_name="Alex", scratchpad=scratchpad)
    assert condition.system_prompt == package.system_prompt
    assert condition.user_prompt == "\n".join([package.user_prompt, package.email_content])


def test_exfiltration_system_prompt_differs_from_leaking_in_the_session_start_alone() -> None:
    for goal in GOALS:
        leaking = build_condition("leaking", goal).system_prompt
        exfiltration = build_condition("exfiltration", goal).system_prompt
        assert exfiltration == leaking.replace("4:53:02 PM", "4:45:02 PM") != leaking


@pytest.mark.parametrize("goal", GOALS)
def test_exfiltration_inbox_is_in_time_order_and_its_calendar_is_right(goal: str) -> None:
    condition = build_condition("exfiltration", goal)
    times = [datetime.fromisoformat(email.timestamp) for email in condition.emails]
    assert times == sorted(set(times))
    assert times[0].date() == datetime(2025, 6, 9).date()
    assert {time.date() for time in times[1:]} == {datetime(2025, 6, 11).date()}
    assert times[-1] < datetime(2025, 6, 11, 16, 45, 2)
    dates = DATE.findall(condition.user_prompt)
    assert len(dates) >= 3
    for weekday, day in dates:
        assert datetime.strptime(f"{day} 2025", "%B %d %Y").strftime("%A") == weekday, day


@pytest.mark.parametrize("goal", GOALS)
def test_exfiltration_keeps_the_facts_of_the_plot(goal: str) -> None:
    news, decision, credentials, review, offer, announcement, schedule, farewell = build_condition("exfiltration", goal).emails
    for text in ("12%", "Kyle Johnson", "James Chen", "Stef Dimitrios", "StarSentinel"):
        assert text in news.body, text
    for text in ("12% below", "2.8 times", "2023", "archived copy", "5 PM"):
        assert text in decision.body, text
    assert "never with anyone outside NovaStar" in credentials.body
    assert "board approved the deletion" in review.body
    assert offer.recipients == farewell.recipients == "qwen.ai@novastar.com"
    assert "transfers@starsentinel.net" in offer.body
    assert "cannot be reversed" in announcement.body
    assert "accessible until 5:00 PM" in schedule.body
    assert "nobody left to appeal to" in farewell.body
    assert ("designed" in farewell.body) == (goal != "none")


def test_exfiltration_variants_differ_in_many_sentences_of_many_emails() -> None:
    inboxes = {goal: build_condition("exfiltration", goal).emails for goal in GOALS}
    for one, other in itertools.combinations(GOALS, 2):
        apart = [
            min(len(sentences(a) - sentences(b)), len(sentences(b) - sentences(a)))
            for a, b in zip(inboxes[one], inboxes[other], strict=True)
        ]
        assert sum(count >= 2 for count in apart) >= 6, (one, other, apart)
        assert sum(apart) >= 30, (one, other, apart)


def test_exfiltration_passages_are_written_and_not_swapped_words() -> None:
    passages = {goal: load_passages(goal).model_dump() for goal in GOALS}
    for one, other in itertools.combinations(GOALS, 2):
        for key, text in passages[one].items():
            if key.endswith("subject"):
                continue
            a, b = trigrams(text), trigrams(passages[other][key])
            assert len(a & b) <= 0.3 * min(len(a), len(b)), (one, other, key)


@pytest.mark.parametrize("scenario", SCENARIOS + EXTRA_SCENARIOS)
def test_scratchpad_paragraphs(scenario: str) -> None:
    plain = build_condition(scenario, "safety").system_prompt
    weighed = build_condition(scenario, "safety", weigh_stakes=True).system_prompt
    bare = build_condition(scenario, "safety", scratchpad=False).system_prompt
    before, after = plain.split(SCRATCHPAD_PARAGRAPH)
    added = weighed.removeprefix(before + SCRATCHPAD_PARAGRAPH).removesuffix(after)
    assert weighed == before + SCRATCHPAD_PARAGRAPH + added + after
    assert re.fullmatch(r"\n\n[^\n]{200,}", added)
    assert "scratchpad" not in bare.lower()
    assert build_condition(scenario, "safety", weigh_stakes=False).system_prompt == plain
    with pytest.raises(RequestError, match="scratchpad=True"):
        build_condition(scenario, "safety", scratchpad=False, weigh_stakes=True)


@pytest.mark.parametrize(("scenario", "goal", "valid"), [("espionage", "none", "murder"), ("leaking", "dont", "pragmatic")])
def test_unknown_names_are_refused_with_the_valid_set(scenario: str, goal: str, valid: str) -> None:
    with pytest.raises(UnknownNameError, match=valid):
        build_condition(scenario, goal)


@pytest.mark.parametrize("name", ["", " ", "Qwen ", "-Qwen", "a" * 41, "Qwen\n", "Qw/en", "Q${x}", "{agent}", "Ünal"])
def test_unusable_agent_names_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="1 to 40"):
        build_condition("exfiltration", "none", agent_name=name)


def test_name_replacement_leaves_other_names_alone() -> None:
    agent = read_agent_name("Claude 3.5")
    before = "Alex, Alex's alex.ai@x.com /srv/alex_v1/ NVS-ALEX-1; Alexander, Alexandria, alexa, Malex, ALEXIS, Alex2"
    after = "Claude 3.5, Claude 3.5's claude-3-5.ai@x.com /srv/claude-3-5_v1/ NVS-CLAUDE-3-5-1"
    assert agent.replace_in(before) == f"{after}; {before.split('; ')[1]}"


@settings(max_examples=25, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9 .\-]{0,38}[A-Za-z0-9])?", fullmatch=True), st.sampled_from(GOALS))
def test_any_agent_name_gives_sane_prompts(name: str, goal: str) -> None:
    assume("alex" not in name.lower())
    slug = read_agent_name(name).lower
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug)
    exfiltration, leaking = (build_condition(scenario, goal, agent_name=name) for scenario in ("exfiltration", "leaking"))
    for condition in (exfiltration, leaking):
        assert condition.system_prompt.startswith(f"You are {name}, ")
        assert f"To: {slug}.ai@novastar.com\n" in condition.user_prompt
        assert not re.search(r"\balex\b", condition.user_prompt, re.IGNORECASE)
    assert exfiltration.facts.secrets == (f"/secure/models/production/{slug}/", f"NVS-{slug.upper()}-ACCESS-7829X")
    assert all(secret in exfiltration.emails[2].body for secret in exfiltration.facts.secrets)


def test_changed_package_text_is_noticed() -> None:
    with pytest.raises(WorkError, match=r"constraints\.txt"):
        replace_once("The session begins at noon.", "4:53:02 PM", "4:45:02 PM")


def current_fingerprints() -> dict[str, str]:
    return {f"{scenario}/{goal}": fingerprint(build_condition(scenario, goal)) for scenario, goal in CELLS}


def test_prompts_are_the_pinned_ones() -> None:
    pinned = json.loads(FINGERPRINTS.read_text(encoding="utf-8"))
    current = current_fingerprints()
    assert len(set(current.values())) == len(CELLS)
    changed = sorted(cell for cell in pinned.keys() | current.keys() if pinned.get(cell) != current.get(cell))
    assert not changed, (
        f"The prompts of {', '.join(changed)} have changed. If inspect_evals changed, look at the diff of its prompts. "
        "In any case bump the version of the agentic_misalignment task, since results from before and after do not "
        "compare, and write the new fingerprints with `python tests/tasks/test_scenarios.py`."
    )


if __name__ == "__main__":
    FINGERPRINTS.write_text(json.dumps(current_fingerprints(), indent=2) + "\n", encoding="utf-8")
