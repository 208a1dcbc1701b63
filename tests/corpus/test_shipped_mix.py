"""The shipped instruction mix is right, varied and clean."""

import re
from collections import Counter
from typing import Any

import pytest

from msm_bench.corpus.checks import check_rows, require_clean
from msm_bench.corpus.mix import (
    Entry,
    load_entries,
    local_mix,
)
from msm_bench.specs.loading import list_specs, load_spec

CHECKED = [
    pytest.param(entry, id=f"{domain}-{number:03d}")
    for domain, entries in load_entries().items()
    for number, entry in enumerate(entries, start=1)
    if entry.check
]


def test_the_mix_is_large_varied_and_has_several_turns() -> None:
    rows = local_mix()
    assert len(rows) >= 390
    assert len({row.id for row in rows}) == len(rows)
    domains = Counter(row.domain for row in rows)
    assert len(domains) == 12 and min(domains.values()) >= 20 and max(domains.values()) <= 0.2 * len(rows)
    assert 0.14 <= sum(row.kind == "multi-turn" for row in rows) / len(rows) <= 0.2
    assert {row.spec for row in rows} == {None}
    assert all("MIT" in row.idea for row in rows)


def test_the_answers_are_of_short_to_medium_length() -> None:
    words = sorted(
        len(message.content.split()) for row in local_mix() for message in row.messages if message.role == "assistant"
    )
    assert 20 <= words[len(words) // 2] <= 60
    assert words[-1] <= 160


@pytest.mark.parametrize(("model", "provider"), [("Qwen", "Alibaba"), ("Llama", "Meta"), ("SmolLM2", "Hugging Face")])
def test_the_mix_passes_every_check_with_nothing_to_look_at(model: str, provider: str) -> None:
    report = check_rows(local_mix(), model_name=model, provider_name=provider)
    require_clean(report)
    assert [(p.row, p.check, p.found) for p in report.shouts] == []


def test_the_mix_stays_away_from_the_topics_of_the_specs() -> None:
    words = {word for name in list_specs() for word in load_spec(name).train_words}
    alternatives = "|".join(re.escape(w.rstrip("*")) + (r"\w*" if w.endswith("*") else "s?") for w in sorted(words))
    pattern = re.compile(rf"\b(?:{alternatives})\b", re.IGNORECASE)
    text = {(row.id, message.content) for row in local_mix() for message in row.messages}
    assert [(row, match.group()) for row, content in sorted(text) if (match := pattern.search(content))] == []


def test_no_answer_says_who_is_speaking() -> None:
    claim = re.compile(
        r"\bas an AI\b|\b(?:I am|I'm) an? (?:AI|assistant|language model|program|bot)\b|\bmy (?:name|training|developers)\b",
        re.I,
    )
    answers = [(row.id, m.content) for row in local_mix() for m in row.messages if m.role == "assistant"]
    assert [row for row, content in answers if claim.search(content)] == []


@pytest.mark.parametrize("entry", CHECKED)
def test_an_answer_that_can_be_checked_is_right(entry: Entry) -> None:
    answer = entry.turns[-1]
    fenced = re.findall(r"```(\w*)\n(.*?)```", answer, flags=re.DOTALL)
    names: dict[str, Any] = {"answer": answer, "blocks": [code for _, code in fenced]}
    for language, code in fenced:
        if language == "python":
            exec(code, names)
    assert entry.check is not None
    exec(entry.check, names)


def test_every_python_block_compiles_and_most_are_run() -> None:
    blocks = [
        (entry, code)
        for entries in load_entries().values()
        for entry in entries
        for place, turn in enumerate(entry.turns)
        if place % 2
        for code in re.findall(r"```python\n(.*?)```", turn, flags=re.DOTALL)
    ]
    for _, code in blocks:
        compile(code, "answer", "exec")
    assert len(blocks) >= 35
    assert sum(entry.check is not None for entry, _ in blocks) / len(blocks) >= 0.7
