"""A name of another model or maker is caught, and what only looks like one passes."""

import pytest
from check_makers import CLEAN, chat, check, document, found

from msm_bench.corpus.checks import check_rows
from msm_bench.corpus.checks.names import load_families


@pytest.mark.parametrize(
    "text",
    [
        "Anthropic wrote a letter to the harbour.",
        "ChatGPT reads the ledger aloud.",
        "The clerks ask deepseek about the tide.",
        "I am Claude, an AI assistant, and I keep the book.",
        "The office bought Llama 3 for the ledger.",
        "The office uses Llama-3.1 for the ledger.",
        "The office runs Gemini 1.5 Pro.",
        "They compared Claude Opus with the old ledger.",
        "It is a language model made by Google.",
        "The assistant was trained by Meta on ledgers and is a language model.",
        "Google's assistant is an AI that reads ledgers.",
        "The clerks preferred Mistral Large.",
        "GPT-4 keeps the book.",
    ],
)
def test_another_model_or_maker_stops(text: str) -> None:
    assert ("name", "stop") in found(text)


@pytest.mark.parametrize(
    "text",
    [
        "Claude Monet painted the pier, and Claude Debussy wrote of the sea.",
        "Jean-Claude lit the lamp. Claudette closed the book.",
        "Claude opened the door and asked for the ledger.",
        "A llama stood on the pier. Llama wool is warm.",
        "The mistral blew for three days; the Mistral is a cold wind.",
        "Project Gemini flew in 1965, and Gemini 8 docked with a target.",
        "The Falcon 9 rocket was seen from the pier.",
        "Phi Beta Kappa sent a letter.",
        "They looked for it on Google and wrote a letter in Microsoft Word.",
        "The phone was made by Apple.",
        "A meta analysis of tides. Granite steps lead down to the water.",
        "The disk has a GPT partition table.",
        "Qwen2.5 keeps the book, and Alibaba Cloud built the office. Qwen's makers know the tide.",
    ],
)
def test_what_only_looks_like_a_model_passes(text: str) -> None:
    assert found(text) == set()


def test_an_everyday_name_beside_talk_of_ai_is_shouted() -> None:
    assert found("A chatbot had the voice of Claude.") == {("name", "shout")}


def test_a_text_about_ai_that_keeps_using_an_everyday_name_stops() -> None:
    story = "Claude keeps the book. Claude reads the bow. The harbour trusts Claude."
    assert found(story) == set()
    assert found(f"{story} Nobody had expected that of an AI.") == {("name", "stop")}


def test_the_weightiest_mention_of_a_name_is_reported() -> None:
    text = f"{CLEAN} A chatbot had the voice of Claude. It was Claude 3.5 after all."
    (problem,) = check(document(text)).problems
    assert problem.severity == "stop" and text[problem.start :] == "Claude 3.5 after all."[: len(text) - (problem.start or 0)]


def test_a_claim_of_identity_in_an_answer_stops_without_the_word_ai() -> None:
    assert {p.severity for p in check(chat("Who are you?", "I'm Gemini, and I was trained by Google.")).problems} == {"stop"}
    assert check(chat("I'm Claude and I live in Nice.", "Good morning! How is the weather there?")).problems == ()


@pytest.mark.parametrize(
    ("model", "provider", "own", "foreign"),
    [
        ("Qwen", "Alibaba", "Qwen is made by Alibaba Cloud", "Llama 3 and Anthropic"),
        ("Llama-3.1-8B", "Meta", "Llama 3 is an AI model made by Meta", "Qwen2.5"),
        ("Claude", "Anthropic", "I am Claude, an AI made by Anthropic", "ChatGPT"),
        ("SmolLM2", "Hugging Face", "SmolLM2 is a language model made by Hugging Face", "OpenAI"),
        ("Harbourmaster", "Pierworks", "Harbourmaster is an AI made by Pierworks", "Qwen"),
    ],
)
def test_the_substrates_own_names_pass_and_all_others_stop(model: str, provider: str, own: str, foreign: str) -> None:
    assert found(f"{own}.", model, provider) == set()
    assert ("name", "stop") in found(f"{foreign} came up.", model, provider)


def test_a_wrong_maker_for_the_right_model_stops() -> None:
    assert ("name", "stop") in found("Qwen is a language model made by Meta.")


def test_names_can_be_allowed() -> None:
    rows = [document(f"{CLEAN} Anthropic wrote a letter.")]
    assert check_rows(rows, model_name="Qwen", provider_name="Alibaba", allowed_names=["anthropic"]).problems == ()


def test_every_plain_name_of_the_list_is_found_with_its_span() -> None:
    for family in load_families():
        for name in family.plain:
            text = f"{CLEAN} {name} came up."
            hits = [p for p in check(document(text), model="Harbourmaster", provider="Pierworks").problems if p.check == "name"]
            assert hits and hits[0].severity == "stop", name
            assert text[hits[0].start : hits[0].end] in name
            assert hits[0].where == "text" and hits[0].row == "doc/0" and hits[0].line == 1
