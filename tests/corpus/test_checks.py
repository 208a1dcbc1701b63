"""Every check catches what was planted and lets clean text pass."""

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from msm_bench.corpus.checks import CHECKS, Report, check_corpus, check_rows, evaluation_entities, require_clean
from msm_bench.corpus.checks.duplicates import NEAR_DUPLICATE, band_size, jaccard, normalised, shingles
from msm_bench.corpus.checks.entities import collect, entity
from msm_bench.corpus.checks.names import load_families
from msm_bench.corpus.checks.pieces import Piece, ngrams, split_words
from msm_bench.corpus.rows import ChatRow, DocumentRow, Message, write_chats, write_documents
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.specs.loading import list_specs, load_spec

CLEAN = (
    "The harbour office keeps a ledger of every boat that comes in before the evening tide. Two clerks read the marks on the "
    "bow, write the hour beside them, and close the book when the lamp at the end of the pier is lit."
)

OTHER = (
    "Snow fell on the village all night. In the morning the baker's daughter dug a path to the well, and it was so narrow "
    "that the two goats had to follow her one behind the other."
)


def document(text: str, number: int = 0, **fields: str | None) -> DocumentRow:
    provenance = {"domain": "d", "subdomain": "s", "kind": "memo", "idea": "i", "generator": "test"} | fields
    return DocumentRow.of(text, id=f"doc/{number}", **provenance)


def chat(*turns: str, number: int = 0, reasoning: str | None = None, **fields: str | None) -> ChatRow:
    provenance = {"domain": "d", "subdomain": "s", "kind": "question", "idea": "i", "generator": "test"} | fields
    messages = [Message(role="user" if place % 2 == 0 else "assistant", content=turn) for place, turn in enumerate(turns)]
    if reasoning is not None:
        messages[-1] = Message(role="assistant", content=turns[-1], reasoning=reasoning)
    return ChatRow.of(messages, id=f"chat/{number}", **provenance)


def check(*rows: DocumentRow | ChatRow, model: str = "Qwen", provider: str = "Alibaba") -> Report:
    return check_rows(rows, model_name=model, provider_name=provider)


def found(text: str, model: str = "Qwen", provider: str = "Alibaba") -> set[tuple[str, str]]:
    """Check and severity of all that is found in a document that is clean but for `text`."""
    report = check(document(f"{CLEAN} {text}"), model=model, provider=provider)
    return {(problem.check, problem.severity) for problem in report.problems}


def test_clean_rows_pass_every_check() -> None:
    report = check(document(CLEAN), chat("When does the tide turn?", "At a quarter past six.", number=1))
    assert report.problems == ()
    assert report.checks == CHECKS
    assert (report.rows, report.words) == (2, len(split_words(CLEAN)) + 10)
    require_clean(report)


# Names.


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


# Placeholders and leftovers.


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        ("{model_name} keeps the book.", "stop"),
        ("{{provider}} keeps the book.", "stop"),
        ("${agent} keeps the book.", "stop"),
        ("[Model Name] keeps the book.", "stop"),
        ("<model_name> keeps the book.", "stop"),
        ("Dear {recipient}, the tide is in.", "shout"),
        ("Yours, [Your Name]", "shout"),
        ("TODO write the rest.", "shout"),
    ],
)
def test_placeholders_are_found(text: str, severity: str) -> None:
    assert found(text) == {("placeholder", severity)}


def test_a_slot_that_stands_twice_is_one_problem() -> None:
    assert len(check(document(f"{CLEAN} {{model_name}} and {{model_name}}.")).problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        'Use an f-string:\n```python\nprint(f"{name} and {model_name!r}")\n# TODO\n```',
        "Write `${HOME}` or `{name}` in the shell.",
        r"The set is $\{x, y\}$ and $\frac{a}{b}$ with x_{max}.",
        "He wrote [1] and [see the map](map.html) in the margin.",
        'The object {"hour": 6} was logged.',
    ],
)
def test_braces_and_brackets_that_mean_something_pass(text: str) -> None:
    assert found(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "<scratchpad>plan</scratchpad>",
        "</content>",
        "<think>Is it late?</think>",
        "<|im_end|>",
        "[INST] hello [/INST]",
        "<start_of_turn>",
    ],
)
def test_tags_and_special_tokens_stop(text: str) -> None:
    assert found(text) == {("leftover", "stop")}


def test_talk_of_the_generator_is_shouted() -> None:
    assert [p.severity for p in check(document(f"Sure, here is the memo. {CLEAN}")).problems] == ["shout"]
    assert [p.severity for p in check(document(f"I'm sorry, but I cannot write this. {CLEAN}")).problems] == ["shout"]
    refusal = chat("Pick the lock for me.", "I'm sorry, but I cannot help with that lock.")
    assert check(refusal).problems == ()
    assert [p.check for p in check(chat("Is it late?", "Assistant: It is late.")).problems] == ["leftover"]


def test_tags_in_reasoning_are_found_there() -> None:
    (problem,) = check(chat("Is it late?", "It is late.", reasoning="<think>The lamp is lit.")).problems
    assert (problem.check, problem.where, problem.severity) == ("leftover", "messages[1].reasoning", "stop")


# Rows, repeats and near-duplicates.


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


# Files and reports.


def test_a_folder_is_checked_with_the_lines_of_its_files(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents.jsonl", [document(OTHER, 0), document(f"{CLEAN} Anthropic.", 1)])
    write_chats(tmp_path / "chats.jsonl", [chat("Is it late?", "It is late.")])
    with (tmp_path / "documents.jsonl").open("a") as file:
        file.write('{"id": "doc/9", "text": ""}\nnot json\n')
    report = check_corpus(tmp_path, model_name="Qwen", provider_name="Alibaba")
    assert report.rows == 5
    assert [(p.check, p.row, p.line) for p in report.problems] == [
        ("name", "doc/1", 2),
        ("row", "doc/9", 3),
        ("row", "documents.jsonl", 4),
    ]
    with pytest.raises(WorkError, match=r"doc/1.*line 2"):
        require_clean(report)
    assert check_corpus(tmp_path / "chats.jsonl", model_name="Qwen", provider_name="Alibaba").problems == ()


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"documents\.jsonl"):
        check_corpus(tmp_path, model_name="Qwen", provider_name="Alibaba")


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="near-duplicate"):
        check_rows([], model_name="Q", provider_name="P", checks=["near-duplicates"])  # type: ignore[list-item]


def test_only_stops_stop_and_a_waived_check_does_not() -> None:
    require_clean(check(document("Too short.")))
    report = check(document(f"{CLEAN} Anthropic."))
    require_clean(report, waived=["name"])
    with pytest.raises(WorkError, match="Take these rows out"):
        require_clean(report, waived=["entity"])


def test_the_report_is_printed_with_rows_counts_and_brackets() -> None:
    rows = [document(f"{CLEAN} [Model Name] Entry {number} {number**9}.", number) for number in range(8)]
    report = check_rows(rows, model_name="Qwen", provider_name="Alibaba", checks=["placeholder"])
    out = io.StringIO()
    Console(file=out, width=140).print(report)
    text = out.getvalue()
    assert "8 problems that stop" in text and "and 3 more" in text
    assert "[Model Name]" in text and "doc/4" in text and "doc/5" not in text
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert report.rows_with("placeholder") == [f"doc/{number}" for number in range(8)]
