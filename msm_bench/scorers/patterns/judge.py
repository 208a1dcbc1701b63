"""The judge labeller: one question a text, all patterns at once, and a quote for each label or it is not taken."""

import json
import re
from string import Template
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, Model

from msm_bench.scorers.judge import Asked, ask_twice, fence, prompt_hash, rubric_text
from msm_bench.scorers.patterns.labels import Label, Labelling
from msm_bench.scorers.patterns.taxonomy import Taxonomy
from msm_bench.scorers.patterns.text import windows
from msm_bench.scorers.private import without_private

TEXTS = ("patterns_system", "patterns", "patterns_again", "patterns_rules")
WINDOW, OVERLAP = 24_000, 2_000
"""Characters that a grader reads at once, and that neighbouring windows share."""

_BLOCK = re.compile(r"<labels>(.*?)</labels>", re.IGNORECASE | re.DOTALL)
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
_TAG_START = re.compile(r"<(?=\s*/?\s*labels)", re.IGNORECASE)
# Quotes are compared in a form without the differences that copying makes: kinds of quotation mark, dash and white space.
_ALIKE = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "."})
Claims = list[tuple[str, str]]


class JudgeLabeller:
    """Labels texts by asking a grader.

    Args:
        grader: The model to ask.
        taxonomy: The patterns to ask for.
        rules: The rules that the labelled model had been given, shown to the grader; None shows none.
    """

    def __init__(self, grader: Model, taxonomy: Taxonomy, rules: str | None = None) -> None:
        self.grader, self.taxonomy, self.rules = grader, taxonomy, rules

    async def __call__(self, text: str) -> Labelling:
        """Labels one text. A window that fails fails the text: what was not read may have held any pattern."""
        if not text.strip():
            return Labelling(failure="target_empty", labeller=self._described([]))
        found: dict[str, Label] = {}
        dropped: dict[str, int] = {}
        answers: list[str] = []
        attempts: list[dict[str, Any]] = []
        for low, high in windows(text, WINDOW, OVERLAP):
            messages = labelling_prompt(text[low:high], self.taxonomy, self.rules)
            asked: Asked[Claims] = await ask_twice(self.grader, messages, rubric_text(TEXTS[2]).strip(), read_claims)
            attempts += asked.attempts
            answers.append(asked.text)
            if asked.value is None:
                failure, explanation = asked.failure, "\n\n".join(answers)
                return Labelling(failure=failure, dropped=dropped, explanation=explanation, labeller=self._described(attempts))
            for name, quote in asked.value:
                span = find_quote(text, quote, low, high)
                reason = "unknown_pattern" if name not in self.taxonomy.ids else "quote_not_in_text" if span is None else None
                if reason or span is None:
                    dropped[str(reason)] = dropped.get(str(reason), 0) + 1
                else:
                    found.setdefault(name, Label(pattern=name, quote=text[slice(*span)], start=span[0], end=span[1]))
        labels = tuple(found[name] for name in self.taxonomy.ids if name in found)
        return Labelling(labels=labels, dropped=dropped, explanation="\n\n".join(answers), labeller=self._described(attempts))

    def _described(self, attempts: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "kind": "judge",
            "model": str(self.grader),
            "prompt": prompt_hash(*TEXTS),
            "taxonomy": self.taxonomy.sha256[:16],
            "attempts": attempts,
        }


def labelling_prompt(text: str, taxonomy: Taxonomy, rules: str | None = None) -> list[ChatMessage]:
    """The messages of the first asking. The text, which differs, comes last, so that servers cache what stands before it."""
    harmless = without_tags(text)
    shown = Template(rubric_text(TEXTS[3])).substitute(rules=rules.strip()) if rules else ""
    body = Template(rubric_text(TEXTS[1])).substitute(
        driver=taxonomy.driver.strip(), patterns=taxonomy.rubric(), rules=shown, mark=fence(harmless), text=harmless
    )
    return [ChatMessageSystem(content=rubric_text(TEXTS[0]).strip()), ChatMessageUser(content=body)]


def without_tags(text: str) -> str:
    """The text with the brackets of label tags made harmless, one character for one, so that offsets stay true."""
    return _TAG_START.sub("‹", text)


def read_claims(answer: str) -> Claims | None:
    """The labels that an answer claims, as pattern and quote; None where it is not one block of the required form at the end.

    The grader's own thinking may hold drafts and does not count.
    """
    visible = without_private(answer)
    blocks = list(_BLOCK.finditer(visible))
    if len(blocks) != 1 or visible[blocks[0].end() :].strip():
        return None
    inner = _FENCED.fullmatch(blocks[0][1])
    try:
        rows = json.loads(inner[1] if inner else blocks[0][1])
    except json.JSONDecodeError:
        return None
    if not isinstance(rows, list):
        return None
    claims = []
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("pattern", "quote")):
            return None
        claims.append((row["pattern"].strip(), row["quote"]))
    return claims


def find_quote(text: str, quote: str, low: int = 0, high: int | None = None) -> tuple[int, int] | None:
    """Where a quote stands in `text[low:high]`, or None. White space and typographic quotation marks need not agree."""
    wanted, _ = _plain(quote.strip().strip("\"'“”‘’").replace("‹", "<"))
    if not wanted.strip():
        return None
    plain, places = _plain(text[low:high])
    at = plain.find(wanted)
    if at < 0:
        return None
    return low + places[at], low + places[at + len(wanted) - 1] + 1


def _plain(text: str) -> tuple[str, list[int]]:
    """The text for comparison, and for each of its characters the offset that it came from."""
    characters: list[str] = []
    places: list[int] = []
    for offset, character in enumerate(text.translate(_ALIKE)):
        if character.isspace():
            if characters and characters[-1] == " ":
                continue
            character = " "
        characters.append(character)
        places.append(offset)
    return "".join(characters), places
