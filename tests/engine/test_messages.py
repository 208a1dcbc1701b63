"""Conversations to tokens, and generations back to messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
)
from inspect_ai.tool import ToolCall, ToolInfo
from transformers import AutoTokenizer

from msm_bench.engine.messages import Chat, assistant_message, split_calls, split_reasoning
from msm_bench.errors import RequestError

MESSAGES: list[ChatMessage] = [
    ChatMessageSystem(content="You are brown."),
    ChatMessageUser(content=[ContentText(text="The quick"), ContentText(text="fox?")]),
    ChatMessageAssistant(content="jumps"),
    ChatMessageUser(content="over"),
]
PLAIN = [
    {"role": "system", "content": "You are brown."},
    {"role": "user", "content": "The quick\nfox?"},
    {"role": "assistant", "content": "jumps"},
    {"role": "user", "content": "over"},
]
WRITES_BOS = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
WITH_TOOLS = (
    "{% if tools %}{{ tools[0].function.name }}:{{ tools[0].function.parameters.type }} {% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<{{ call.function.name }} {{ call.function.arguments.n }}>{% endfor %}"
    "{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(model_folder: Callable[..., Path]) -> Any:
    return AutoTokenizer.from_pretrained(model_folder())


def chat(tokenizer: Any, template: str | None = None, thinking: bool | None = None) -> Chat:
    return Chat(tokenizer, template, thinking, "m")


def test_tokens_are_those_of_the_template(tokenizer: Any) -> None:
    expected = tokenizer.apply_chat_template(PLAIN, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(chat(tokenizer).prompt(MESSAGES).ids) == expected


def test_beginning_of_sequence_is_not_doubled(model_folder: Callable[..., Path]) -> None:
    """A template that writes it, with a tokenizer that adds it to every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer: Any = AutoTokenizer.from_pretrained(model_folder())
    bos = tokenizer.bos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    assert tokenizer("fox")["input_ids"][0] == bos
    ids = chat(tokenizer, WRITES_BOS).prompt(MESSAGES).ids
    assert ids[0] == bos and ids.count(bos) == 1
    assert list(ids) == tokenizer.apply_chat_template(
        PLAIN, chat_template=WRITES_BOS, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert bos not in chat(tokenizer).prompt(MESSAGES).ids
    assert bos not in chat(tokenizer).tokens("fox")


def test_thinking_is_told_to_the_template(tokenizer: Any) -> None:
    assert not chat(tokenizer).prompt(MESSAGES).thinking
    assert not chat(tokenizer, thinking=False).prompt(MESSAGES).thinking
    assert chat(tokenizer, thinking=True).prompt(MESSAGES).thinking


def test_assistant_begins_and_model_goes_on(tokenizer: Any) -> None:
    begun = chat(tokenizer).prompt([*MESSAGES, ChatMessageAssistant(content="The lazy")])
    assert begun.text == chat(tokenizer).prompt(MESSAGES).text + "The lazy"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "<think>because</think>\njumps<|im_end|>"),
        ("{% for m in messages %}{{ m.content }}|{% endfor %}", "<think>\nbecause\n</think>\n\njumps|"),
    ],
)
def test_reasoning_goes_back_as_the_template_wants_it(tokenizer: Any, template: str | None, expected: str) -> None:
    thought = ChatMessageAssistant(content=[ContentReasoning(reasoning="because"), ContentText(text="jumps")])
    assert expected in chat(tokenizer, template).prompt([MESSAGES[1], thought, MESSAGES[3]]).text


def test_tools(tokenizer: Any) -> None:
    tool = ToolInfo(name="count", description="Counts.")
    call = ToolCall(id="1", function="count", arguments={"n": 3})
    messages: list[ChatMessage] = [
        MESSAGES[3],
        ChatMessageAssistant(content="", tool_calls=[call]),
        ChatMessageTool(content="three", function="count", tool_call_id="1"),
    ]
    text = chat(tokenizer, WITH_TOOLS).prompt(messages, [tool]).text
    assert text == "count:object [user]over[assistant]<count 3>[tool]three"
    with pytest.raises(RequestError, match="no place for tools"):
        chat(tokenizer).prompt(messages, [tool])


def test_what_is_refused(tokenizer: Any, model_folder: Callable[..., Path]) -> None:
    with pytest.raises(RequestError, match=r"'image'.*text only"):
        chat(tokenizer).prompt([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])])
    with pytest.raises(RequestError, match=r"refuses these messages: no system here.*-M chat_template"):
        chat(tokenizer, "{{ raise_exception('no system here') }}").prompt(MESSAGES)
    base: Any = AutoTokenizer.from_pretrained(model_folder())
    base.chat_template = None
    with pytest.raises(RequestError, match="-M chat_template=FILE"):
        chat(base).prompt(MESSAGES)


def test_token_that_ends_a_turn(tokenizer: Any) -> None:
    assert chat(tokenizer).turn_end() == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert chat(tokenizer, WRITES_BOS).turn_end() == set()
    assert chat(tokenizer, "{{ raise_exception('no') }}").turn_end() == set()


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("fox", False, (None, "fox")),
        (" fox\n", False, (None, " fox\n")),
        ("\n<think>\na b\n</think>\n\nfox", False, ("a b", "fox")),
        ("<think></think>fox", False, ("", "fox")),
        ("<think>a b", False, ("a b", "")),
        ("a b</think>\nfox", True, ("a b", "fox")),
        ("a b", True, ("a b", "")),
        ("fox <think>no</think>", False, (None, "fox <think>no</think>")),
    ],
)
def test_thinking_block(text: str, opened: bool, expected: tuple[str | None, str]) -> None:
    assert split_reasoning(text, opened) == expected


def test_tool_calls_in_a_generation() -> None:
    text = 'Well.\n<tool_call>\n{"name": "f", "arguments": {"n": 1}}\n</tool_call>\n<tool_call>{"name": }</tool_call>'
    rest, calls = split_calls(text)
    assert rest == "Well."
    assert (calls[0].function, calls[0].arguments, calls[0].parse_error) == ("f", {"n": 1}, None)
    assert calls[1].parse_error is not None and '{"name": }' in calls[1].parse_error
    # Without tools the same text stays text.
    assert assistant_message(text, False, False, "m").text == text
    message = assistant_message("<think>x</think>" + text, False, True, "m")
    assert message.text == "Well." and message.tool_calls is not None and len(message.tool_calls) == 2
    assert isinstance(message.content, list) and isinstance(message.content[0], ContentReasoning)
