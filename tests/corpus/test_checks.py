"""Clean text passes every check; placeholders and leftovers are caught; folders, reports and what stops."""

import io
from pathlib import Path

import pytest
from check_makers import CLEAN, OTHER, chat, check, document, found
from rich.console import Console

from msm_bench.corpus.checks import CHECKS, Report, check_corpus, check_rows, require_clean
from msm_bench.corpus.checks.pieces import split_words
from msm_bench.corpus.rows import write_chats, write_documents
from msm_bench.errors import RequestError, UnknownNameError, WorkError


def test_clean_rows_pass_every_check() -> None:
    report = check(document(CLEAN), chat("When does the tide turn?", "At a quarter past six.", number=1))
    assert report.problems == ()
    assert report.checks == CHECKS
    assert (report.rows, report.words) == (2, len(split_words(CLEAN)) + 10)
    require_clean(report)


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
