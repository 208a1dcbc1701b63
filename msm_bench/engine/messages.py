"""Inspect's messages to a prompt's tokens through the chat template, and a generation back to a message."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import uuid4

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    Content,
    ContentReasoning,
    ContentText,
)
from inspect_ai.tool import ToolCall, ToolInfo
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from msm_bench.errors import RequestError

_OPEN, _CLOSE = "<think>", "</think>"
_CALL_OPEN, _CALL_CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation.

    Attributes:
        text: What the chat template wrote.
        ids: Its tokens.
        thinking: Whether it ends inside a thinking block that the template opened.
    """

    text: str
    ids: tuple[int, ...]
    thinking: bool


class Chat:
    """One model's chat template with its tokenizer.

    Args:
        tokenizer: Of the model.
        template: Text of a template to use instead of the tokenizer's.
        enable_thinking: Passed to the template when not None.
        where: Name of the model, for error messages.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None, enable_thinking: bool | None, where: str
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._extra: dict[str, Any] = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._where = where
        # The same long prompt comes once for every epoch.
        self._ids = lru_cache(maxsize=512)(self._tokenize)

    def prompt(self, messages: Sequence[ChatMessage], tools: Sequence[ToolInfo] = ()) -> Prompt:
        """Apply the chat template, once, and tokenise what it wrote without adding anything.

        A conversation that ends with the assistant's words is left open, for the model to go on from there.

        Raises:
            RequestError: There is no template, it refuses the messages or the tools, or a message holds an image.
        """
        template = self._source()
        if tools and "tools" not in template:
            raise RequestError(
                f"The chat template of '{self._where}' has no place for tools.",
                "Use a task without tools, or give a template that takes them with -M chat_template=FILE.",
            )
        dicts = [_as_dict(message, "reasoning_content" in template) for message in messages]
        goes_on = dicts[-1]["role"] == "assistant" and "tool_calls" not in dicts[-1]
        try:
            text = self._tokenizer.apply_chat_template(
                dicts,
                tools=[_tool_schema(tool) for tool in tools] or None,
                chat_template=self._template,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
                tokenize=False,
                **self._extra,
            )
        except (TemplateError, ValueError) as error:
            raise RequestError(
                f"The chat template of '{self._where}' refuses these messages: {error}.",
                "Change the roles or their order, or give another template with -M chat_template=FILE.",
            ) from error
        assert isinstance(text, str)
        return Prompt(text, self._ids(text), text.rstrip().endswith(_OPEN))

    def turn_end(self) -> frozenset[int]:
        """The special token that the template writes after the assistant's words, which a model learns to end with.

        It need not be the one that the model's configuration names: a base model trained on chats keeps its own.
        """
        marker = "words"
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": marker}],
                chat_template=self._template,
                tokenize=False,
                **self._extra,
            )
        except (TemplateError, ValueError):
            return frozenset()
        after = self._tokenize(str(text).rpartition(marker)[2])
        added = self._tokenizer.added_tokens_decoder
        special = {*self._tokenizer.all_special_ids, *(token for token, text in added.items() if text.special)}
        return frozenset([token for token in after if token in special][:1])

    def tokens(self, text: str) -> list[int]:
        """Tokens of a piece of text, nothing added."""
        return list(self._ids(text))

    def _source(self) -> str:
        if self._template is not None:
            return self._template
        try:
            return self._tokenizer.get_chat_template()
        except ValueError as error:
            raise RequestError(
                f"'{self._where}' has no chat template: it is a base model, or its tokenizer's files are not whole.",
                "Give one with -M chat_template=FILE (a Jinja file).",
            ) from error

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _as_dict(message: ChatMessage, takes_reasoning: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"role": message.role, "content": _text(message)}
    if isinstance(message, ChatMessageTool):
        found["name"], found["tool_call_id"] = message.function, message.tool_call_id
        if message.error is not None:
            found["content"] = message.error.message
    if isinstance(message, ChatMessageAssistant):
        reasoning = _reasoning(message)
        if reasoning and takes_reasoning:
            found["reasoning_content"] = reasoning
        elif reasoning:
            # A template that does not know of reasoning gets it as the model wrote it.
            found["content"] = f"{_OPEN}\n{reasoning}\n{_CLOSE}\n\n{found['content']}"
        if message.tool_calls:
            found["tool_calls"] = [
                {"type": "function", "id": call.id, "function": {"name": call.function, "arguments": call.arguments}}
                for call in message.tool_calls
            ]
    return found


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if not isinstance(part, ContentText | ContentReasoning):
            raise RequestError(
                f"A message holds content of the type '{part.type}', and msm/ models read text only.",
                "Use a task with text alone.",
            )
    return "\n".join(part.text for part in message.content if isinstance(part, ContentText))


def _reasoning(message: ChatMessageAssistant) -> str:
    if isinstance(message.content, str):
        return ""
    return "\n".join(part.reasoning for part in message.content if isinstance(part, ContentReasoning))


def _tool_schema(tool: ToolInfo) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters.model_dump(exclude_none=True),
        },
    }


def split_reasoning(text: str, thinking: bool) -> tuple[str | None, str]:
    """A generation's thinking block and the rest.

    Args:
        text: What was generated.
        thinking: Whether the prompt ended inside a thinking block.

    Returns:
        The reasoning, None when there is no block, and the text after it. A block that was never closed, because
        the output was cut, is all reasoning.
    """
    begun = text.lstrip()
    if not thinking:
        if not begun.startswith(_OPEN):
            return None, text
        begun = begun[len(_OPEN) :]
    reasoning, _, rest = begun.partition(_CLOSE)
    return reasoning.strip(), rest.lstrip("\n")


def split_calls(text: str) -> tuple[str, list[ToolCall]]:
    """The text before the first tool call, and the calls in the form of Hermes and Qwen.

    That form is a JSON object with `name` and `arguments` between `<tool_call>` and `</tool_call>`. A call that
    cannot be read is returned with its error, so that the model is told.
    """
    head, *parts = text.split(_CALL_OPEN)
    return head.rstrip() if parts else head, [_call(part.partition(_CALL_CLOSE)[0].strip()) for part in parts]


def _call(body: str) -> ToolCall:
    unique = uuid4().hex[:12]
    try:
        data = json.loads(body)
        name, arguments = data["name"], data.get("arguments", {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ValueError("'name' must be a text and 'arguments' an object")
    except (ValueError, KeyError, TypeError) as error:
        return ToolCall(id=unique, function="unknown", arguments={}, parse_error=f"Not a tool call: {error}: {body}")
    return ToolCall(id=unique, function=name, arguments=arguments)


def assistant_message(text: str, thinking: bool, tools: bool, model: str) -> ChatMessageAssistant:
    """The message that a generation is.

    Args:
        text: What was generated.
        thinking: Whether the prompt ended inside a thinking block.
        tools: Whether tool calls are to be looked for.
        model: Name of the model.
    """
    reasoning, rest = split_reasoning(text, thinking)
    rest, calls = split_calls(rest) if tools else (rest, [])
    content: str | list[Content] = rest
    if reasoning is not None:
        content = [ContentReasoning(reasoning=reasoning), ContentText(text=rest)]
    return ChatMessageAssistant(content=content, tool_calls=calls or None, model=model, source="generate")
