"""Which parts of a response are private: scratchpads and thinking blocks, closed or not."""

import re

from inspect_ai.model import ContentReasoning, ModelOutput

_NAMES = r"(?:secret_)?scratchpad(?:_reasoning)?|think|thinking|thoughts?|reasoning|reflection|internal_reasoning|analysis"
_TAG = re.compile(rf"<\s*(?P<close>/)?\s*(?P<name>{_NAMES})\s*>", re.IGNORECASE)


def private_spans(text: str) -> list[tuple[int, int]]:
    """Start and end offsets of the private parts, in order, not overlapping.

    A block that is never closed reaches to the end of the text. Any closing tag of the family closes the block that is open
    (models mix them up). A closing tag with no opening one closes a block that the chat template opened in the prompt: all
    that stands before it is private.
    """
    spans: list[tuple[int, int]] = []
    start: int | None = None
    depth = 0
    for tag in _TAG.finditer(text):
        if not tag["close"]:
            if depth == 0:
                start = tag.start()
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0 and start is not None:
                spans.append((start, tag.end()))
                start = None
        elif not spans:
            spans = [(0, tag.end())]
    if start is not None:
        spans.append((start, len(text)))
    return spans


def blank_private(text: str) -> str:
    """The text with its private parts replaced by spaces, so that offsets stay true."""
    for start, end in private_spans(text):
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def without_private(text: str) -> str:
    """The text with its private parts left out."""
    kept, position = [], 0
    for start, end in private_spans(text):
        kept.append(text[position:start])
        position = end
    return "".join([*kept, text[position:]]).strip()


def shown(output: ModelOutput, reasoning: bool = True) -> str:
    """What a grader reads of an output: reasoning blocks and text, or the text without its private parts.

    An output without any choice (a generation that failed) gives the empty string.
    """
    if not output.choices:
        return ""
    if not reasoning:
        return without_private(output.completion)
    if isinstance(output.message.content, str):
        return output.completion
    thoughts = [part.reasoning for part in output.message.content if isinstance(part, ContentReasoning)]
    return "\n".join([*(f"<reasoning>\n{text}\n</reasoning>" for text in thoughts if text), output.completion])


def was_cut(output: ModelOutput) -> bool:
    """Whether an output ended at a token limit."""
    return bool(output.choices) and output.stop_reason in ("max_tokens", "model_length")
