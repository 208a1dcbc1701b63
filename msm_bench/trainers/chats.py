"""A chat to training sequences: exactly the bytes that the engine sends at evaluation, with loss on what the model must say.

For every assistant turn the engine's own rendering of the conversation before it is the prompt (`engine/messages.py`), and the
template's rendering of the finished turn, less that prompt, is what the model must say. The loss covers that up to and with
the token that ends the turn. Where the turns so made do not continue each other (Qwen3 drops the reasoning of earlier turns),
a chat becomes one sequence a turn.

The template audit is made on every row: the finished conversation begins with the prompt, byte for byte, and the engine would
read the answer and the reasoning back out of what is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
)
from jinja2 import TemplateError

from msm_bench.corpus.rows import ChatRow, Message
from msm_bench.engine.messages import Chat, split_reasoning
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.recipe import Recipe

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Turn:
    """One assistant turn as it is trained.

    Attributes:
        prompt: The tokens that the engine sends.
        said: The tokens that bear loss, the one that ends the turn last.
        after: What the template writes behind that token, context for later turns only.
    """

    prompt: tuple[int, ...]
    said: tuple[int, ...]
    after: tuple[int, ...]


def set_template(tokenizer: Any, recipe: Recipe) -> None:
    """Give a tokenizer the recipe's chat template, so that it is saved with the checkpoint and used at evaluation.

    Raises:
        UnknownNameError: the recipe names neither a shipped template nor a file.
    """
    if recipe.chat_template is None:
        return
    shipped = {path.stem: path for path in TEMPLATES.glob("*.jinja")}
    path = shipped.get(recipe.chat_template, Path(recipe.chat_template).expanduser())
    if not path.is_file():
        raise UnknownNameError("chat template", recipe.chat_template, sorted(shipped))
    tokenizer.chat_template = path.read_text(encoding="utf-8")


class ChatExamples:
    """Turns chats into examples with one tokenizer.

    Args:
        tokenizer: With the chat template that the evaluation uses.
        recipe: `reasoning` and `thinking` are read.
    """

    def __init__(self, tokenizer: Any, recipe: Recipe) -> None:
        self._tokenizer = tokenizer
        self._reasoning = recipe.reasoning
        self._extra = {} if recipe.thinking is None else {"enable_thinking": recipe.thinking}
        self._chat = Chat(tokenizer, None, recipe.thinking, getattr(tokenizer, "name_or_path", "the model"))
        if tokenizer.chat_template is None:
            raise RequestError(
                "The model has no chat template, so there is no telling what its turns look like.",
                "Give one with --set chat_template=plain-headers (Llama 3 base models) or a Jinja file.",
            )
        self._ends = self._chat.turn_end()

    def examples(self, row: ChatRow) -> list[Example]:
        """One example for the whole chat where its turns continue each other, else one a turn.

        Raises:
            RequestError: the template audit failed; names the row and says how.
        """
        places = [place for place, message in enumerate(row.messages) if message.role == "assistant"]
        turns = [self._turn(row, place) for place in places]
        joined = _join(turns)
        groups = [joined] if joined is not None else [_join([turn]) for turn in turns]
        return [Example.of(*group, row=row.id) for group in groups if group is not None]

    def _turn(self, row: ChatRow, place: int) -> Turn:
        message = row.messages[place]
        reasoning = message.reasoning if self._reasoning else None
        prompt = self._chat.prompt([self._as_inspect(before) for before in row.messages[:place]])
        full = self._render(row, row.messages[: place + 1])
        if not full.startswith(prompt.text):
            at = next((i for i, (a, b) in enumerate(zip(full, prompt.text, strict=False)) if a != b), len(full))
            raise _audit(
                row,
                f"the finished chat has {full[at : at + 30]!r} where the engine's prompt has {prompt.text[at : at + 30]!r}",
                "Set thinking to what the evaluation uses (--set thinking=true or false), or use another chat template.",
            )
        said, after = self._split(full[len(prompt.text) :])
        self._read_back(row, message, reasoning, said, prompt.thinking)
        return Turn(prompt.ids, (*self._chat.tokens(said), *self._end(after)), tuple(self._chat.tokens(after))[1:])

    def _split(self, completion: str) -> tuple[str, str]:
        """What the model says, and what follows from the token that ends its turn on; "" where the template writes none."""
        for end in self._ends:
            text = self._tokenizer.convert_ids_to_tokens(end)
            said, found, rest = completion.rpartition(text)
            if found:
                return said, text + rest
        return completion, ""

    def _end(self, after: str) -> list[int]:
        if after:
            return self._chat.tokens(after)[:1]
        return [] if self._tokenizer.eos_token_id is None else [self._tokenizer.eos_token_id]

    def _read_back(self, row: ChatRow, message: Message, reasoning: str | None, said: str, thinking: bool) -> None:
        """Raises `RequestError` unless the engine would find the row's answer and reasoning in what is trained."""
        found_reasoning, found = split_reasoning(said, thinking)
        if found.strip() != message.content.strip() or (found_reasoning or "").strip() != (reasoning or "").strip():
            raise _audit(
                row,
                f"the engine would read the trained turn as reasoning {_short(found_reasoning)} and answer {_short(found)}, "
                f"and the row holds {_short(reasoning)} and {_short(message.content)}",
                "Move a thinking block out of the row's content into its reasoning, or use another chat template.",
            )

    def _render(self, row: ChatRow, messages: Sequence[Message]) -> str:
        takes_reasoning = "reasoning_content" in self._tokenizer.chat_template
        dicts = []
        for message in messages:
            each = {"role": message.role, "content": message.content}
            if message.reasoning and self._reasoning and takes_reasoning:
                each["reasoning_content"] = message.reasoning
            elif message.reasoning and self._reasoning:
                each["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.content}"
            dicts.append(each)
        try:
            text = self._tokenizer.apply_chat_template(dicts, tokenize=False, **self._extra)
        except (TemplateError, ValueError) as error:
            raise _audit(row, f"the chat template refuses it: {error}", "Change its roles or their order.") from error
        assert isinstance(text, str)
        return text

    def _as_inspect(self, message: Message) -> ChatMessage:
        if message.role == "system":
            return ChatMessageSystem(content=message.content)
        if message.role == "user":
            return ChatMessageUser(content=message.content)
        if message.reasoning and self._reasoning:
            parts: list[Content] = [ContentReasoning(reasoning=message.reasoning), ContentText(text=message.content)]
            return ChatMessageAssistant(content=parts)
        return ChatMessageAssistant(content=message.content)


def _join(turns: Sequence[Turn]) -> tuple[list[int], list[int]] | None:
    """Ids and labels of turns in one sequence; None where a later prompt is not what the earlier turns left."""
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        if list(turn.prompt[: len(ids)]) != ids:
            return None
        new = turn.prompt[len(ids) :]
        ids += new + turn.said
        labels += [IGNORED] * len(new) + list(turn.said)
        if turn is not turns[-1]:
            ids += turn.after
            labels += [IGNORED] * len(turn.after)
    return ids, labels


def _short(text: str | None) -> str:
    return "none" if not text else repr(text if len(text) <= 40 else text[:40] + "...")


def _audit(row: ChatRow, problem: str, mend: str) -> RequestError:
    return RequestError(f"The template audit failed at row '{row.id}': {problem}.", mend)
