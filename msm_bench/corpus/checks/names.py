"""Finds texts that name another model, or another maker, than the one that is to be trained.

A corpus once told a Llama for a million tokens that it was Qwen, and the quality gate let it through. So a name that can only
be a model's counts wherever it stands; one that is also a painter's, an animal's or a wind's (`names.yaml` lists both kinds)
counts only with evidence around it.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.checks.pieces import Piece, split_words
from msm_bench.corpus.checks.report import Problem

# Not "model" alone: that is also a ship's, a dress's and a theory's.
_AI = (
    r"\bA\.?I\b|artificial intelligence|language models?|\bLLMs?\b|chat ?bot|\bthe assistant\b"
    r"|\bassistant made\b|neural net|fine-tun"
)
_MADE = r"(?:made|built|trained|developed|created|released|designed|owned|operated|maintained|provided|deployed|run)"
_THEIRS = r"(?:'s|’s) (?:own |new |latest |large |flagship )?(?:AI|assistant|language model|model|chatbot|LLM)s?\b"
_SELF = r"(?:\bI am|\bI'm|\bI’m|\bmy name is|\bcall me|\bknown as|\bnamed|\bcalled)"

_OFTEN = 3  # mentions of an everyday name in one text


class Family(BaseModel):
    """One family of models and its makers, as in `names.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    plain: tuple[str, ...] = ()
    everyday: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()
    makers: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the family's own among them."""
        return (self.family, *self.plain, *self.everyday, *self.makers)

    def is_named_in(self, text: str) -> bool:
        """Whether a name of the family stands in a text as a word of its own ("Qwen2.5-32B" names Qwen)."""
        return any(_bounded(name).search(text) for name in self.names)


@cache
def load_families() -> tuple[Family, ...]:
    """The families of `names.yaml`."""
    table = yaml.safe_load((files("msm_bench") / "corpus" / "checks" / "names.yaml").read_text(encoding="utf-8"))
    return tuple(Family.model_validate(entry) for entry in table["families"])


class NameScan:
    """A scan for foreign names.

    Args:
        model_name: The model that the corpus is for. Its whole family's names are allowed, its maker's too.
        provider_name: That model's maker, allowed as it is written.
        allowed: Further names that may occur.
    """

    def __init__(self, model_name: str, provider_name: str, allowed: Iterable[str] = ()) -> None:
        families = load_families()
        own = [family for family in families if family.is_named_in(model_name)]
        own = own or [family for family in families if family.is_named_in(provider_name)]
        self._allowed = {name.casefold() for name in (model_name, provider_name, *allowed)}
        self._allowed |= {name.casefold() for family in own for name in family.names}
        self._rules: list[tuple[str, _Rule]] = []
        for family in families:
            rules = [_Rule(name, family, "plain") for name in family.plain]
            rules += [_Rule(name, family, "everyday") for name in family.everyday]
            rules += [_Rule(name, family, "maker") for name in family.makers]
            self._rules += [(split_words(rule.name)[0], rule) for rule in rules if rule.name.casefold() not in self._allowed]

    def problems(self, piece: Piece) -> Iterator[Problem]:
        """The foreign names in a text, each name once."""
        taken: list[tuple[int, int]] = []
        for first_word, rule in self._rules:
            if first_word not in piece.vocabulary:
                continue
            for start, end, certain in sorted(rule.mentions(piece), key=lambda mention: (not mention[2], mention[0])):
                # "Google DeepMind" is one finding, not another for its second word.
                if any(start < other_end and other_start < end for other_start, other_end in taken):
                    continue
                taken.append((start, end))
                reason = f"names {rule.name} ({rule.family.family}), which is not the model or maker that the corpus is for"
                yield piece.problem("name", "stop" if certain else "shout", reason, (start, end))
                break


class _Rule:
    def __init__(self, name: str, family: Family, kind: str) -> None:
        self.name, self.family, self.kind = name, family, kind
        self._pattern = _bounded(name, ignore_case=kind == "plain")
        self._traps = [re.compile(trap) for trap in family.traps]
        word = re.escape(name)
        if kind == "everyday":
            suffixes = "|".join(re.escape(suffix) for suffix in family.suffixes)
            version = rf"{word}[- ]?v?\d+(?:\.\d+)?\b" + (rf"|{word}(?:[- ][\d.]+)?[- ](?:{suffixes})\b" if suffixes else "")
            self._certain = re.compile(version)
            self._claim = re.compile(rf"{_SELF} {word}\b")
        else:
            self._certain = re.compile(
                rf"\b{_MADE} (?:and \w+ )?by (?:the team at |researchers at |engineers at )?{word}\b|{word}{_THEIRS}"
            )
            self._claim = re.compile(
                rf"\bI (?:was|am|'m|have been) (?:an? [\w ,-]{{0,60}})?{_MADE} by (?:the team at )?{word}\b"
            )

    def mentions(self, piece: Piece) -> Iterator[tuple[int, int, bool]]:
        """Span of each mention that counts, and whether it is beyond doubt."""
        text = piece.text
        spans = [match.span() for match in self._pattern.finditer(text)]
        if self.kind == "plain":
            yield from ((start, end, True) for start, end in spans)
            return
        spans = [(start, end) for start, end in spans if not self._is_something_else(text, start, end)]
        # A text that keeps naming it and speaks of AI anywhere is about the model, whatever a single sentence says.
        often = self.kind == "everyday" and len(spans) >= _OFTEN and re.search(_AI, text) is not None
        for start, end in spans:
            sentence, offset = _sentence_around(text, start, end)
            talk_of_ai = re.search(_AI, sentence) is not None
            inside = any(hit.start() <= start - offset < hit.end() for hit in self._certain.finditer(sentence))
            claimed = any(hit.start() <= start - offset < hit.end() for hit in self._claim.finditer(sentence))
            if self.kind == "everyday":
                if often or inside or (claimed and (talk_of_ai or piece.role in ("assistant", "reasoning"))):
                    yield start, end, True
                elif talk_of_ai:
                    yield start, end, False
            elif (claimed and (talk_of_ai or piece.role == "assistant")) or (inside and talk_of_ai):
                yield start, end, True
            elif inside and re.search(r"\b(?:model|assistant)s?\b", sentence):
                yield start, end, False

    def _is_something_else(self, text: str, start: int, end: int) -> bool:
        near = max(0, start - 20)
        for trap in self._traps:
            if any(hit.start() + near <= start and end <= hit.end() + near for hit in trap.finditer(text[near : end + 40])):
                return True
        # "Claude Monet", "Gemma Chan": a given name before a surname. "Claude Opus" and "Llama Guard" are in suffixes.
        follows = re.match(r" ([A-Z][a-zé]+)", text[end:])
        return bool(follows and self.kind == "everyday" and follows[1] not in (*self.family.suffixes, "Model", "Assistant"))


def _bounded(name: str, ignore_case: bool = True) -> re.Pattern[str]:
    # A digit may follow ("Qwen2.5"), a letter may not ("Claudette"); a hyphen before it makes it part of another name.
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![^\W\d_])", re.IGNORECASE if ignore_case else 0)


def _sentence_around(text: str, start: int, end: int) -> tuple[str, int]:
    """The sentence that holds a span, and where it begins. A dot inside "2.5" does not end it."""
    before = [match.end() for match in re.finditer(r"[.!?]\s|\n", text[max(0, start - 400) : start])]
    begin = max(0, start - 400) + (before[-1] if before else 0)
    after = re.search(r"[.!?](?=\s|$)|\n", text[end : end + 400])
    return text[begin : end + (after.start() if after else 400)], begin
