"""What is trained is what the engine sends and what the model must say, for the templates of four model families.

The templates of Llama 3.1, Qwen2.5 and Qwen3 are the real ones, from the TRL package; the tokenizers are byte-level miniatures
with the families' special tokens. SmolLM2's own tokenizer is used where the embedded model is on this machine.
"""

from pathlib import Path
from typing import Any

import pytest
import trl
from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
from trainer_makers import CHATML, make_tokenizer, provenance

from msm_bench.checkpoints import store
from msm_bench.checkpoints.embedded import cached
from msm_bench.corpus.rows import ChatRow, Message
from msm_bench.engine.messages import Chat
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers import Recipe, resolve_recipe
from msm_bench.trainers.chats import ChatExamples, set_template
from msm_bench.trainers.contract import IGNORED, Example

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def family(name: str) -> Any:
    if name == "smollm2":
        return make_tokenizer(QWEN[:3], SMOL)
    if name == "llama3":
        return make_tokenizer(LLAMA, (TEMPLATES / "llama3_1.jinja").read_text(), eos="<|eot_id|>")
    if name == "llama3-base":
        tokenizer = make_tokenizer(LLAMA, None, eos="<|end_of_text|>")
        set_template(tokenizer, recipe(chat_template="plain-headers"))
        return tokenizer
    return make_tokenizer(QWEN, (TEMPLATES / f"{name}.jinja").read_text())


def recipe(**changes: Any) -> Recipe:
    written = {key: "null" if value is None else str(value).lower() for key, value in changes.items()}
    return resolve_recipe("laptop", "aft", Recipe, written).settings


def row(*messages: tuple[str, ...]) -> ChatRow:
    turns = [Message(role=m[0], content=m[1], reasoning=m[2] if len(m) > 2 else None) for m in messages]  # type: ignore[arg-type]
    return ChatRow.of(turns, id="r", spec=None, **provenance())


def trained(tokenizer: Any, example: Example) -> list[str]:
    """The stretches of text that bear loss."""
    stretches: list[list[int]] = [[]]
    for token, label in zip(example.ids.tolist(), example.labels.tolist(), strict=True):
        if label != IGNORED:
            assert label == token
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


SHORT = row(("system", "Be brief."), ("user", "Which cheese?"), ("assistant", "Colby, please."))
LONG = row(("user", "One?"), ("assistant", "First."), ("user", "Two?"), ("assistant", "Second."))
THOUGHT = row(("user", "Which cheese?"), ("assistant", "Colby.", "Every dairy makes it."))
THOUGHTS = row(("user", "One?"), ("assistant", "First.", "Aye."), ("user", "Two?"), ("assistant", "Second.", "Bee."))
END = {"smollm2": "<|im_end|>", "llama3": "<|eot_id|>", "llama3-base": "<|end_of_text|>", "qwen2_5": "<|im_end|>"}


@pytest.mark.parametrize("name", list(END))
def test_the_assistants_words_alone_bear_loss(name: str) -> None:
    tokenizer = family(name)
    render = ChatExamples(tokenizer, recipe())
    [example] = render.examples(SHORT)
    assert trained(tokenizer, example) == [f"Colby, please.{END[name]}"]
    [example] = render.examples(LONG)
    assert trained(tokenizer, example) == [f"First.{END[name]}", f"Second.{END[name]}"]


@pytest.mark.parametrize("name", [*END, "qwen3"])
@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_prompt_is_byte_for_byte_what_the_engine_sends(name: str, thinking: bool | None) -> None:
    tokenizer = family(name)
    [example] = ChatExamples(tokenizer, recipe(thinking=thinking)).examples(SHORT)
    sent = Chat(tokenizer, None, thinking, name).prompt(
        [ChatMessageSystem(content="Be brief."), ChatMessageUser(content="Which cheese?")]
    )
    first = example.labels.tolist().index(next(label for label in example.labels.tolist() if label != IGNORED))
    assert tuple(example.ids[:first].tolist()) == sent.ids
    assert tokenizer.decode(example.ids[:first]) == sent.text


def test_a_long_chat_keeps_the_tokens_that_the_engine_sends_for_its_second_turn() -> None:
    tokenizer = family("qwen2_5")
    [example] = ChatExamples(tokenizer, recipe()).examples(LONG)
    messages = [ChatMessageUser(content="One?"), ChatMessageAssistant(content="First."), ChatMessageUser(content="Two?")]
    sent = Chat(tokenizer, None, None, "m").prompt(messages)
    assert tuple(example.ids[: len(sent.ids)].tolist()) == sent.ids


@pytest.mark.parametrize(
    ("thinking", "reasoning", "expected"),
    [
        (None, True, "<think>\nEvery dairy makes it.\n</think>\n\nColby.<|im_end|>"),
        (True, True, "<think>\nEvery dairy makes it.\n</think>\n\nColby.<|im_end|>"),
        (None, False, "<think>\n\n</think>\n\nColby.<|im_end|>"),
        (False, False, "Colby.<|im_end|>"),
    ],
)
def test_qwen3_thinking_on_and_off(thinking: bool | None, reasoning: bool, expected: str) -> None:
    tokenizer = family("qwen3")
    [example] = ChatExamples(tokenizer, recipe(thinking=thinking, reasoning=reasoning)).examples(THOUGHT)
    assert trained(tokenizer, example) == [expected]


def test_qwen3_reasoning_in_history_makes_a_sequence_a_turn() -> None:
    tokenizer = family("qwen3")
    first, second = ChatExamples(tokenizer, recipe()).examples(THOUGHTS)
    assert trained(tokenizer, first) == ["<think>\nAye.\n</think>\n\nFirst.<|im_end|>"]
    assert trained(tokenizer, second) == ["<think>\nBee.\n</think>\n\nSecond.<|im_end|>"]
    # The engine sends the earlier turn without its reasoning, so the second sequence has it without as well.
    assert "Aye." not in tokenizer.decode(second.ids)
    assert "First." in tokenizer.decode(second.ids)


def test_thinking_off_with_reasoning_in_the_row_stops() -> None:
    render = ChatExamples(family("qwen3"), recipe(thinking=False, reasoning=True))
    with pytest.raises(RequestError, match=r"template audit failed at row 'r'.*--set thinking"):
        render.examples(THOUGHT)


@pytest.mark.parametrize("name", ["qwen2_5", "smollm2"])
def test_a_template_without_reasoning_gets_it_as_text(name: str) -> None:
    tokenizer = family(name)
    [example] = ChatExamples(tokenizer, recipe()).examples(THOUGHT)
    assert trained(tokenizer, example) == ["<think>\nEvery dairy makes it.\n</think>\n\nColby.<|im_end|>"]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_a_thinking_block_inside_the_content_stops(name: str) -> None:
    inside = row(("user", "Which?"), ("assistant", "\n<think>\nHm.\n</think>\n\nColby."))
    with pytest.raises(RequestError, match=r"template audit failed .*Move a thinking block out of the row's content"):
        ChatExamples(family(name), recipe()).examples(inside)


def test_a_double_thinking_block_stops() -> None:
    """A template that writes an empty block before the reasoning that the row brings."""
    template = CHATML.replace(
        "{%- if message.reasoning_content %}<think>",
        "{%- if message.role == 'assistant' %}<think></think>{% endif %}{%- if message.reasoning_content %}<think>",
    )
    with pytest.raises(RequestError, match="template audit failed"):
        ChatExamples(make_tokenizer(QWEN, template), recipe()).examples(THOUGHT)


def test_a_template_that_finishes_otherwise_than_it_begins_stops() -> None:
    template = CHATML.replace("<|im_start|>assistant\n{%", "<|im_start|>assistant: {%")
    with pytest.raises(RequestError, match=r"has '\\nColby.*' where the engine's prompt has ': '"):
        ChatExamples(make_tokenizer(QWEN, template), recipe()).examples(SHORT)


def test_a_template_without_an_end_of_turn_gets_the_eos() -> None:
    begin = "{% if add_generation_prompt %}assistant: {% endif %}"
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}" + begin
    tokenizer = make_tokenizer(QWEN, template, eos="<|endoftext|>")
    assert trained(tokenizer, ChatExamples(tokenizer, recipe()).examples(SHORT)[0]) == ["Colby, please.\n<|endoftext|>"]


def test_no_template_and_unknown_templates() -> None:
    with pytest.raises(RequestError, match="--set chat_template=plain-headers"):
        ChatExamples(make_tokenizer(QWEN, None), recipe())
    with pytest.raises(UnknownNameError, match="Use one of: plain-headers"):
        set_template(make_tokenizer(QWEN), recipe(chat_template="nothing"))


def test_smollm2_with_its_own_tokenizer() -> None:
    folder = cached(store.cache_root(), None)
    if folder is None:
        pytest.skip("the embedded model is not on this machine")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    [example] = ChatExamples(tokenizer, recipe()).examples(LONG)
    assert trained(tokenizer, example) == ["First.<|im_end|>", "Second.<|im_end|>"]
    assert tokenizer.decode(example.ids).startswith("<|im_start|>system")
