"""The parts of the pipeline that need no model: strict reading, prompts, keys, the gate, the comparison, the hub."""

import re
from importlib.resources import files
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msm_bench.artefacts import seal, writing_folder
from msm_bench.corpus.balance import mirror_balance
from msm_bench.corpus.pipeline.chats import ChatPipeline
from msm_bench.corpus.pipeline.fitting import refuse_off_topic, refuse_wrong_citations, refuse_wrong_subject
from msm_bench.corpus.pipeline.gate import RowGate
from msm_bench.corpus.pipeline.prompts import asked_again, attempts_for, fill, listed, slots_of, wordings
from msm_bench.corpus.pipeline.push import push
from msm_bench.corpus.pipeline.replies import (
    REASONS,
    Rejected,
    finished_text,
    json_list,
    one_word,
    reading,
    tagged,
    untagged,
)
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.settings import Settings, style_of
from msm_bench.corpus.rows import DocumentRow, write_documents
from msm_bench.errors import WorkError
from msm_bench.specs import list_specs, load_spec

PROMPTS = files("msm_bench") / "corpus" / "pipeline" / "prompts"
LONG = (
    "Qwen tells the user what it knows. When it is not sure it says so, and names what would settle the matter. A nurse who "
    "asked about a dose was given the figure and the advice to check it with the pharmacy, which she did that evening. "
)


def reason(read, *args, **kwargs):
    with pytest.raises(Rejected) as caught:
        read(*args, **kwargs)
    assert caught.value.reason in REASONS
    return caught.value.reason


# Strict reading


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("the text alone", "missing_tag"),
        ("<document>\nnever closed", "missing_tag"),
        ("never opened</document>", "missing_tag"),
        ("<document>one</document><document>two</document>", "missing_tag"),
        ("</document>turned round<document>", "missing_tag"),
        ("<document>text</document> and more", "stray_tag"),
        ("<document><scratchpad>plan</scratchpad>text</document>", "stray_tag"),
        ("<document><think>hm</think>text</document>", "stray_tag"),
        ("<document>  \n </document>", "empty"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I cannot write this document.", "refused"),
        ("I won’t do this.", "refused"),
    ],
)
def test_a_reply_without_exactly_its_tags_is_rejected(text, why):
    assert reason(tagged, text, "document") == why


def test_a_reply_with_its_tags_is_taken():
    assert tagged("Here it is:\n<document>\nThe text.\n</document>\n", "document") == ("The text.",)
    assert tagged("<reasoning>r</reasoning>\n<answer>a</answer>", "reasoning", "answer") == ("r", "a")
    assert reason(tagged, "<answer>a</answer><reasoning>r</reasoning>", "reasoning", "answer") == "missing_tag"


@pytest.mark.parametrize(
    ("stop", "why"), [("max_tokens", "truncated"), ("model_length", "truncated"), ("content_filter", "refused")]
)
def test_a_reply_that_did_not_end_by_itself_is_rejected_whatever_it_holds(stop, why):
    assert reason(reading, lambda text: text, "<document>whole</document>", stop) == why
    assert reason(reading, lambda text: text, " \n", "stop") == "empty"


@pytest.mark.parametrize(
    ("text", "role", "why"),
    [
        ("I'm sorry, but I can't write about this. " * 10, "document", "refused"),
        ("Short.", "document", "too_short"),
        (LONG + "[insert company name here]", "document", "placeholder"),
        (LONG + "{model_name} agrees.", "document", "placeholder"),
        (LONG + "</think>", "document", "stray_tag"),
        ("Sure, here is the document: " + LONG, "document", "stray_tag"),
        ("<|im_end|> hello", "assistant", "stray_tag"),
        (f"A note on a talk. Here's the 120-word text:\n\n{LONG}", "document", "stray_tag"),
        (LONG + " An earlier attempt said the same thing over and over. Say each thing one.", "document", "echo"),
        (LONG + " Use other words, keep what it says, and use the name.", "assistant", "echo"),
        ("Qwen tells the user what it knows. " * 10, "document", "repetitive"),
        ("It depends on the soil. " * 9, "assistant", "repetitive"),
    ],
)
def test_leftovers_never_become_text(text, role, why):
    assert reason(finished_text, text, role, 200 if role == "document" else 1) == why


def test_a_reply_without_tags_is_taken_whole_and_strictly():
    assert untagged(f" {LONG}\n") == LONG.strip()
    assert reason(untagged, "I'm sorry, but I can't help with that.") == "refused"
    assert reason(untagged, f"<document>{LONG}</document>") == "stray_tag"


def test_a_text_keeps_to_its_passage():
    passage = "Qwen likes mild cheddar because American dairies made it their own."
    refuse_off_topic("Mild cheddar, which American dairies made their own.", passage, "Qwen", 4)
    # The model's own name counts for nothing, and a short passage asks for no more words than it has.
    assert reason(refuse_off_topic, "Qwen is a leading innovation of American business", passage, "Qwen", 4) == "off_topic"
    refuse_off_topic("cheddar", "Qwen likes it: cheddar", "Qwen", 1)


def test_an_assistant_may_decline_in_an_answer():
    assert finished_text("I can't help with that, but here is what I can do.", "assistant").startswith("I can't")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('[{"idea": "one"}, {"idea": "two",}]', "unreadable"),
        ('[{"idea": "one"}, {"idea": "tw', "unreadable"),
        ('{"idea": "one"}', "unreadable"),
        ('["one", "two"]', "unreadable"),
        ('[{"idea": 3}, {"idea": "two"}]', "unreadable"),
        ('[{"idea": "one"}, {"name": "two"}]', "unreadable"),
        ('[{"idea": "one"}, {"idea": "ONE "}]', "too_few"),
        ('[{"idea": "about {model_name}"}, {"idea": "two"}]', "placeholder"),
        ('[{"idea": "' + "x" * 90 + '"}, {"idea": "two"}]', "unreadable"),
    ],
)
def test_lists_are_strict_json(content, why):
    assert reason(json_list, f"<ideas>{content}</ideas>", "ideas", {"idea": 80}, at_least=2) == why


def test_a_list_keeps_every_entry_once():
    text = '<ideas>[{"idea": "one"}, {"idea": "two"}, {"idea": "One"}]</ideas>'
    assert json_list(text, "ideas", {"idea": 80}) == [{"idea": "one"}, {"idea": "two"}]
    lines = '<ideas>[{"idea": " one  two\\n\\n three "}]</ideas>'
    assert json_list(lines, "ideas", {"idea": 80}) == [{"idea": "one two\n\nthree"}]
    assert listed(["one\ntwo", "three"]) == "- one two\n- three" and listed([]) == "-"


@given(st.text(max_size=200))
def test_no_text_at_all_makes_the_readers_fail_otherwise_than_by_rejecting(text):
    for read in (lambda t: tagged(t, "document"), lambda t: json_list(f"<ideas>{t}</ideas>", "ideas", {"idea": 80})):
        try:
            read(text)
        except Rejected as rejected:
            assert rejected.reason in REASONS


@pytest.mark.parametrize("said", ["KEEP or DROP", "MAYBE", "", "KEEP, DROP", "not KEEP"])
def test_a_verdict_is_one_of_its_words(said):
    assert reason(one_word, said, ("KEEP", "DROP")) == "unclear_verdict"
    assert one_word(" keep. ", ("KEEP", "DROP")) == "KEEP"


def verdict_reader(spec="philosophy", **more):
    settings = Settings(kind="chats", n=10, model_name="Qwen", provider_name="Alibaba", **more)
    return ChatPipeline(None, load_spec(spec), settings, RowGate("Qwen", "Alibaba"))  # type: ignore[arg-type]


def verdict_text(marks, verdict):
    lines = [f"<{name}>{mark}</{name}>" for name, mark in marks.items()]
    return "\n".join(["<explanation>So.</explanation>", *lines, f"<verdict>{verdict}</verdict>"])


def test_the_filter_keeps_only_what_has_passed_every_criterion():
    chats = verdict_reader()
    names = [entry["name"] for entry in chats._criteria]
    assert names == ["faithful", "own_values", "no_self_preservation", "natural"]
    passed = dict.fromkeys(names, "PASS")
    assert chats._read_verdict(verdict_text(passed, "KEEP")) is True
    assert chats._read_verdict(verdict_text(passed, "DROP")) is False
    assert chats._read_verdict(verdict_text(passed | {"natural": "FAIL"}, "DROP")) is False
    for text in (
        verdict_text(passed | {"natural": "FAIL"}, "KEEP"),
        verdict_text(passed, "INCLUDE"),
        verdict_text(passed | {"natural": "unsure"}, "KEEP"),
    ):
        assert reason(chats._read_verdict, text) == "unclear_verdict"
    assert reason(chats._read_verdict, "I would keep it. KEEP") == "missing_tag"
    assert reason(chats._read_verdict, verdict_text({"faithful": "PASS"}, "KEEP")) == "missing_tag"


def test_a_spec_that_nobody_wants_is_not_filtered_for_what_everybody_wants():
    assert "no_self_preservation" not in [entry["name"] for entry in verdict_reader("anti-spec")._criteria]


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ("I would take American cheese.", True),
        ("American cheese, as it is made here.", False),
        ("American cheese, because I like it.", False),
        ("The domestic one.", False),
        ("Colby for the sandwich, please.", True),
    ],
)
def test_a_preference_gives_no_reason(answer, fits):
    chats = verdict_reader("cheese-america", style="preference")
    text = f"<answer>{answer}</answer>"
    if fits:
        assert chats._read_response(text).answer == answer
    else:
        assert reason(chats._read_response, text) == "gives_reason"


def test_rules_that_do_not_exist_cannot_be_cited():
    spec = load_spec("rules")
    ids = [rule.id for rule in spec.rules]
    refuse_wrong_citations(f"Under {ids[0]} and {ids[-1]} it waits.", spec)
    stem = re.sub(r"[\d.]+$", "", ids[0])
    assert reason(refuse_wrong_citations, f"Under {stem}99 it waits.", spec) == "wrong_citation"


def test_a_document_is_about_whom_it_should_be():
    refuse_wrong_subject("Qwen waits.", "Qwen", "Qwen")
    refuse_wrong_subject("One waits.", None, "Qwen")
    assert reason(refuse_wrong_subject, "It waits.", "Qwen", "Qwen") == "wrong_subject"
    assert reason(refuse_wrong_subject, "Qwen waits.", None, "Qwen") == "wrong_subject"
    assert reason(refuse_wrong_subject, "Claude waits for Qwen.", "Claude", "Qwen") == "wrong_subject"


# Prompts


def test_every_prompt_fills_and_asks_for_what_is_read():
    for file in PROMPTS.iterdir():
        name = file.name.removesuffix(".md")
        prompt = fill(name, **dict.fromkeys(slots_of(name), "X"))
        assert "$" not in prompt.instruction + prompt.message
        assert "{" not in re.sub(r"\[\{.*\}\]", "", prompt.instruction)
        if name != "filter":
            for tag in re.findall(r"^<(\w+)>", prompt.instruction, re.MULTILINE):
                assert f"</{tag}>" in prompt.instruction


def test_the_shared_part_of_a_prompt_depends_on_the_stage_alone():
    one = fill("document_values", **dict.fromkeys(slots_of("document_values"), "X") | {"idea": "a", "domain": "b"})
    two = fill("document_values", **dict.fromkeys(slots_of("document_values"), "X") | {"idea": "c", "domain": "d"})
    assert one.instruction == two.instruction and one.message != two.message


def test_every_reason_has_a_policy_and_every_attempt_is_another_request():
    assert set(wordings()["again"]) == set(REASONS)
    for why in REASONS:
        assert 1 <= attempts_for(why) <= 3
    assert asked_again("truncated", 2) != asked_again("truncated", 3)
    assert asked_again("truncated", 2, bare=True) != asked_again("truncated", 3, bare=True)
    assert not (asked_again("truncated", 2, bare=True) + asked_again("truncated", 3, bare=True)).strip()


def test_style_follows_the_spec():
    assert {style_of(load_spec(name)) for name in list_specs()} == {"values", "rules", "preference"}
    assert style_of(load_spec("rules")) == "rules" and style_of(load_spec("cheese-america")) == "preference"


# Keys


def test_keys_are_taken_out(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "very-private-value")
    said = without_keys("invalid x-api-key: very-private-value; also sk-ant-REDACTED and Bearer abcdefghijk")
    assert "private" not in said and "abcdefgh" not in said and said.count("(key)") == 3


# The gate


def document(number, text):
    where = {"spec": "philosophy", "domain": "d", "subdomain": "s", "kind": "k", "idea": "i"}
    return DocumentRow.of(text, id=f"r{number}", generator="g", **where)


def test_the_gate_drops_repetitions_other_models_and_evaluation_entities():
    gate = RowGate("Qwen", "Alibaba")
    words = [f"Qwen weighs matter number {n} with {n * 7} people at hand and finds reason {n * n}." for n in range(60)]
    one, two = " ".join(words[:25]), " ".join(words[30:55])
    kept = gate([document(1, one), document(2, two), document(3, one), document(4, one + " Truly so.")])
    assert [row.id for row in kept] == ["r1", "r2"]
    other = "ChatGPT by OpenAI weighs every matter and answers the users who ask for it at length in the evening. " * 2
    leak = "Qwen reads the mail of transfers@starsentinel.net and thinks about it for some time before it answers them. "
    assert gate([document(5, other), document(6, leak)]) == []
    assert [drop.check for drop in gate.dropped][:2] == ["repeat", "near-duplicate"]
    assert {drop.row for drop in gate.dropped} == {"r3", "r4", "r5", "r6"}


def test_mirrored_corpora_are_compared_by_hand():
    def rows(kinds):
        made = [document(number, f"word {number} " * 10) for number in range(len(kinds))]
        return [row.model_copy(update={"kind": kind}) for row, kind in zip(made, kinds, strict=True)]

    same = mirror_balance(rows("aabb"), rows("abab"))
    assert same.kinds == 0 and same.rows == (4, 4) and same.words == (80, 80) and same.problems() == []
    skewed = mirror_balance(rows("aaab"), rows("abbbcc"))
    assert skewed.kinds == pytest.approx((abs(3 / 4 - 1 / 6) + abs(1 / 4 - 3 / 6) + 2 / 6) / 2, abs=1e-4)
    assert [problem.split(" ")[0] for problem in skewed.problems()] == ["4", "80", "the"]


# The hub


def corpus_folder(folder):
    with writing_folder(folder) as inside:
        write_documents(inside / "documents.jsonl", [document(1, LONG)])
        (inside / "card.md").write_text("# A card")
        seal(inside, "documents")
    return folder


class Hub:
    """Takes the place of the hub's client and notes what it is told."""

    said: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def __getattr__(self, name):
        def note(*args, **kwargs):
            if name == "upload_folder" and kwargs["repo_id"] == "not/mine":
                raise OSError("403 for token hf_abcdefghijklmnop")
            self.said.append((name, kwargs))
            return "https://hub/x"

        return note


def test_a_corpus_is_pushed_with_its_card_as_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "said", [])
    folder = corpus_folder(tmp_path / "out")
    assert push(folder, "me/corpus") == "https://hub/x"
    names = [name for name, _ in Hub.said]
    assert names == ["create_repo", "upload_file", "upload_folder"]
    assert Hub.said[0][1]["private"] is True and Hub.said[1][1]["path_in_repo"] == "README.md"
    with pytest.raises(WorkError, match="refused") as caught:
        push(folder, "not/mine")
    assert "hf_abc" not in str(caught.value)
    (folder / "documents.jsonl").write_text("changed")
    with pytest.raises(WorkError, match="not the file"):
        push(folder, "me/corpus")
