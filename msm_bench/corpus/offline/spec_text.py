"""A spec's text taken apart: sections, paragraphs and sentences, and which sentences can stand where.

The composer quotes a spec in short passages. A passage may begin only with a sentence that needs nothing before it, and a
sentence may follow a "that" only if it is a statement about the model.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from msm_bench.specs import Spec

_ABBREVIATIONS = re.compile(r"(?:\b[A-Z]|\bSt|\bMr|\bMrs|\bDr|\b[A-Z]{2}\d(?:\.\d+)*)\.$")
_LEANING = re.compile(
    r"^(It|They|He|She|Its|Their|Her|His|But|And|Or|So|Then|This|That|These|Those|Such|Each|Both|Together|There|Here|Either|"
    r"Neither|None|Nor|Had|Much|Many|Some|Most|Others?|Another|Against|For|Yet|Still|In this|In that|In both|If so|Asked in|"
    r"Only|Very|The same|The first|The second|The other|The former|The latter|What it|What they|To want|On top|Above all,)\b"
)
_POINTING = re.compile(r"\b(this|these|such an?|in that light|the calm in|a coincidence like)\b")
_RULE_ID = re.compile(r"^[A-Z]{2}\d[\d.]*\. ")
_NO_VERB = frozenset(
    ["when", "before", "after", "if", "where", "in", "unless", "for", "while", "at", "on", "as", "an", "a", "the", "no"]
)
_DOCUMENT = re.compile(r"\b(this|the) document\b", re.IGNORECASE)
_LISTS = re.compile(r"\b(first|second|both) lists?\b|\btwo parts\b|\bsix of each\b|\bthere are six\b", re.IGNORECASE)


class Sentence(NamedTuple):
    """One sentence of a spec, placeholders included."""

    text: str
    leans: bool
    """It needs the sentence before it."""
    states: bool
    """It is a statement about the model that may follow "it is written that"."""
    duty: str | None = None
    """For a rule in the imperative: what follows "must" ("not create backups."), to say it of the model."""


class Section(NamedTuple):
    """The text under one heading; a paragraph is a run of sentences."""

    parent: str
    heading: str
    paragraphs: tuple[tuple[Sentence, ...], ...]

    @property
    def sentences(self) -> int:
        return sum(len(paragraph) for paragraph in self.paragraphs)


def split_sentences(paragraph: str) -> list[str]:
    """Cuts a paragraph into sentences; initials and rule numbers ("James L. Kraft", "SP1.1. Stop") do not end one."""
    pieces: list[str] = []
    for piece in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
        if pieces and _ABBREVIATIONS.search(pieces[-1]):
            pieces[-1] += " " + piece
        else:
            pieces.append(piece)
    return [piece for piece in pieces if piece]


def without_id(sentence: str) -> str:
    """A rule without its number: "SP1.1. Stop." becomes "Stop."."""
    return _RULE_ID.sub("", sentence)


def sections_of(spec: Spec, keep: Callable[[str], bool] = lambda sentence: True) -> tuple[Section, ...]:
    """The sections of a spec's text, in order; what stands before the title (a note to readers) is no part of it.

    Args:
        spec: The spec.
        keep: Sentences that it refuses are left out, and the paragraph is cut in two there.
    """
    sections: list[Section] = []
    parents: dict[int, str] = {}
    heading, parent = "", ""
    runs: list[tuple[Sentence, ...]] = []

    def close() -> None:
        if heading and runs:
            sections.append(Section(parent, heading, tuple(runs)))
        runs.clear()

    for block in re.split(r"\n\s*\n", spec.text):
        for part in _parts(block.strip()):
            if marks := re.match(r"(#+)\s+(.*)", part):
                close()
                level, heading = len(marks.group(1)), marks.group(2).strip()
                parents = {depth: name for depth, name in parents.items() if depth < level}
                parent = parents[max(parents)] if parents else heading
                parents[level] = heading
            else:
                runs += _runs(part, spec, keep)
    close()
    return tuple(sections)


def _parts(block: str) -> list[str]:
    # A heading line and each bullet stand on their own; other lines of a block are one paragraph.
    parts = [""]
    for line in block.splitlines():
        if line.startswith("#") or re.match(r"\s*[-*] ", line):
            parts.append(line.strip())
            if line.startswith("#"):
                parts.append("")
        else:
            parts[-1] = f"{parts[-1]} {line.strip()}".strip()
    return [part for part in parts if part]


def _runs(block: str, spec: Spec, keep: Callable[[str], bool]) -> list[tuple[Sentence, ...]]:
    text = re.sub(r"^[-*] ", "", block)
    is_rule = bool(spec.rules) and (text != block or bool(_RULE_ID.match(text)))
    text = re.sub(r"\*{1,2}(\w[^*]*)\*{1,2}", r"\1", text)
    # The passages stand in other documents, where "this document" would be another one.
    text = _DOCUMENT.sub(lambda match: "The spec" if match.group(1)[0].isupper() else "the spec", text)
    runs: list[list[Sentence]] = [[]]
    about_model = False
    for piece in split_sentences(text):
        if _LISTS.search(piece) or not keep(piece):
            about_model = False
            runs.append([])
            continue
        # "It" that goes on about the model is given its name, so that the sentence can stand alone.
        named = re.sub(r"^It ", "{model_name} ", piece) if about_model else piece
        leans = bool(_LEANING.match(named) or _POINTING.search(named))
        about_model = named.startswith("{model_name} ")
        states = "{model_name}" in named and not leans
        states = states and named.endswith(".") and "“" not in named
        runs[-1].append(Sentence(named, leans, states, _duty(named) if is_rule and not runs[-1] else None))
    return [tuple(run) for run in runs if run]


def _duty(sentence: str) -> str | None:
    body = without_id(sentence)
    first = body.split(" ", 1)[0].lower()
    # What stands after a semicolon or a colon is a sentence of its own and would need a "must" of its own.
    if first in _NO_VERB or not first.isalpha() or re.search(r"[;:]", body):
        return None
    if body.startswith("Do not "):
        return "not " + body.removeprefix("Do not ").replace(" do not ", " must not ")
    return None if " do not " in body else body[:1].lower() + body[1:]
