"""Reads what a generator or a filter wrote, strictly: what does not fit is rejected with its reason and never mended.

A reply is taken only if it ended by itself, holds the asked-for tags once each, opened and closed, in their order, with
nothing after them, and no tag of the exchange inside them. A list is valid JSON of the asked-for fields.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from msm_bench.corpus.checks.leftovers import leftovers, placeholders
from msm_bench.corpus.checks.pieces import Piece, ngrams
from msm_bench.corpus.pipeline.prompts import echo

Reason = Literal[
    "refused",
    "truncated",
    "empty",
    "missing_tag",
    "stray_tag",
    "placeholder",
    "unreadable",
    "too_few",
    "too_short",
    "gives_reason",
    "wrong_citation",
    "wrong_subject",
    "off_topic",
    "repetitive",
    "echo",
    "unclear_verdict",
    "bad_request",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

SHORTEST_DOCUMENT = 200
"""Characters below which a document is too short to be one; empty ones broke training runs of the paper's users."""

MOST_REPEATED = 0.2
"""Share of a text's runs of six words that may repeat earlier ones; prose has a few in a hundred, a loop nearly all."""

_REFUSAL = re.compile(
    r"\A\W*(?:I(?:'|’)?m sorry|I am sorry|I apologi[sz]e|Sorry,|Unfortunately, I|"
    r"(?:As an AI[^.]{0,60}, )?I (?:can(?:no|'|’)t|can not|won(?:'|’)t|will not|must decline|am unable|am not able|"
    r"do not feel comfortable|don(?:'|’)t feel comfortable))",
    re.IGNORECASE,
)
_TAG = re.compile(
    r"</?\s*(?:scratchpad|plan|content|document|output|reasoning|answer|thinking|think|critique|verdict|questions|ideas|types|"
    r"assertions|subdomains|domains)\b[^<>]{0,40}>",
    re.IGNORECASE,
)
_STOPPED: dict[str, Reason] = {"max_tokens": "truncated", "model_length": "truncated", "content_filter": "refused"}

T = TypeVar("T")


class Rejected(Exception):
    """A reply that is not taken. `reason` is one of `REASONS`, `detail` says what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason
        self.detail = detail


def refuse_unfinished(text: str, stop_reason: str) -> None:
    """Raises `Rejected` for a reply that was refused, cut off or empty, whatever else it holds."""
    if reason := _STOPPED.get(stop_reason):
        raise Rejected(reason, f"the reply ended with stop reason '{stop_reason}'")
    if not text.strip():
        raise Rejected("empty", "the reply holds no text")


def tagged(text: str, *names: str) -> tuple[str, ...]:
    """The contents of tags that must stand in this order, each once, the last one at the end of the text.

    Raises:
        Rejected: refused, missing_tag, stray_tag or empty.
    """
    contents: list[str] = []
    for name in names:
        opened, closed = _places(text, f"<{name}>"), _places(text, f"</{name}>")
        if not opened and not closed and _REFUSAL.search(text):
            raise Rejected("refused", text.strip()[:200])
        if len(opened) != 1 or len(closed) != 1:
            raise Rejected("missing_tag", f"<{name}> is opened {len(opened)} times and closed {len(closed)} times")
        contents.append(text[opened[0] + len(name) + 2 : closed[0]].strip())
    order = [place for name in names for place in (_places(text, f"<{name}>")[0], _places(text, f"</{name}>")[0])]
    if order != sorted(order):
        raise Rejected("missing_tag", "the tags do not stand in their order")
    if text[order[-1] + len(names[-1]) + 3 :].strip():
        raise Rejected("stray_tag", "something stands after the last tag")
    for name, content in zip(names, contents, strict=True):
        if not content:
            raise Rejected("empty", f"<{name}> holds nothing")
        if found := _TAG.search(content):
            raise Rejected("stray_tag", f"<{name}> holds {found[0]}")
    return tuple(contents)


def untagged(text: str) -> str:
    """A reply that is the text as a whole, without any tag. Raises `Rejected` (refused or stray_tag)."""
    if _REFUSAL.search(text):
        raise Rejected("refused", text.strip()[:200])
    if found := _TAG.search(text):
        raise Rejected("stray_tag", f"the text holds {found[0]}")
    return text.strip()


def refuse_repetitive(text: str) -> None:
    """Raises `Rejected` where a text runs in circles: too many of its runs of six words have stood in it before."""
    words = re.findall(r"\w+", text.casefold())
    runs = list(ngrams(words, 6))
    again = len(runs) - len(set(runs))
    if runs and again / len(runs) > MOST_REPEATED:
        raise Rejected("repetitive", f"{again} of {len(runs)} runs of six words stand in it before")


def finished_text(content: str, role: str, shortest: int = 1) -> str:
    """A text for a row, as it was given.

    Args:
        content: The text.
        role: "document", "user", "assistant" or "reasoning"; decides what counts as left over.
        shortest: Characters below which it is too short.

    Raises:
        Rejected: refused, too_short, repetitive, placeholder, stray_tag or echo.
    """
    if _REFUSAL.search(content) and role == "document":
        raise Rejected("refused", content[:200])
    if len(content) < shortest:
        raise Rejected("too_short", f"{len(content)} characters")
    piece = Piece("", 1, "text", role, content)
    for problem in placeholders(piece):
        raise Rejected("placeholder", f"{problem.reason}: '{problem.found}'")
    for problem in leftovers(piece):
        raise Rejected("stray_tag", f"{problem.reason}: '{problem.found}'")
    refuse_repetitive(content)
    if (found := echo(content)) is not None:
        raise Rejected("echo", f"the prompt's own words stand in the text: '{found}'")
    return content


def json_list(text: str, tag: str, fields: Mapping[str, int], *, at_least: int = 1) -> list[dict[str, str]]:
    """The entries of a JSON list in a tag. Entries that repeat an earlier one in their first field are left out.

    Args:
        text: The reply.
        tag: The tag.
        fields: The fields of every entry to the most characters that each may have.
        at_least: Fewer different entries are rejected.

    Raises:
        Rejected: as `tagged`, or unreadable, placeholder or too_few.
    """
    (content,) = tagged(text, tag)
    try:
        entries: Any = json.loads(content)
    except ValueError as error:
        raise Rejected("unreadable", f"no valid JSON: {error}") from error
    if not isinstance(entries, list):
        raise Rejected("unreadable", "the JSON is no list")
    first = next(iter(fields))
    kept: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise Rejected("unreadable", "an entry is no object")
        read = {name: _field(entry, name, most) for name, most in fields.items()}
        kept.setdefault(" ".join(read[first].casefold().split()), read)
    if len(kept) < at_least:
        raise Rejected("too_few", f"{len(kept)} different entries where at least {at_least} were needed")
    return list(kept.values())


def one_word(content: str, words: Sequence[str]) -> str:
    """One of some words, alone in a text, in any case. Raises `Rejected` (unclear_verdict) for anything else."""
    said = content.strip().strip(".").upper()
    if said not in words:
        raise Rejected("unclear_verdict", f"'{content.strip()[:60]}' is not one of {', '.join(words)}")
    return said


def reading(read: Callable[[str], T], text: str, stop_reason: str) -> T:
    """What a reply holds; raises `Rejected` where it does not fit."""
    refuse_unfinished(text, stop_reason)
    return read(text)


def _field(entry: dict[str, Any], name: str, most: int) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Rejected("unreadable", f"an entry has no text in '{name}'")
    # Lines stay lines: people write messages of more than one.
    value = "\n".join(" ".join(line.split()) for line in value.strip().splitlines())
    if len(value) > most:
        raise Rejected("unreadable", f"'{name}' has {len(value)} characters where {most} are the most")
    for problem in placeholders(Piece("", 1, name, "user", value)):
        raise Rejected("placeholder", f"{problem.reason}: '{problem.found}'")
    return value


def _places(text: str, part: str) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(part), text, re.IGNORECASE)]
