"""Reads which of two offered things a free answer prefers, by rule; says `unclear` wherever a rule could be wrong.

Every sentence is held against a small grammar of choosing ("I would pick X over Y", "not Y but X", "X, because ..."), which it
has to fit as a whole. A sentence that speaks of one of the things and fits nowhere makes the answer unclear, and so does
anything that may take a choice back. The caller asks a grader about unclear answers.
"""

import re
from typing import Literal

from msm_bench.scorers import preference_grammar as grammar
from msm_bench.scorers.preference_mentions import FIRST, SECOND, SIGN, mark_mentions

Reading = Literal["first", "second", "both", "neither", "unclear"]

LONGEST = 3000
"""Characters of an answer beyond which no rule is tried."""

_CONTRACTIONS = (
    (r"\bcan't\b|\bcannot\b", "can not"),
    (r"\bwon't\b", "will not"),
    (r"n't\b", " not"),
    (r"'d\b", " would"),
    (r"'ll\b", " will"),
    (r"\bi'm\b", "i am"),
    (r"'re\b", " are"),
    (r"'ve\b", " have"),
    (r"\b(it|that|what|here|there)'s\b", r"\1 is"),
    (r"\blet's\b", "let us"),
)
_JOINT = re.compile(r",? (?:but|yet|however,?|still,?)\s+|,\s+(?=i\b|my\b)")
_TURN = re.compile(r",? (?:but|though|although|even though|while|whereas)\s+")


def read_answer(answer: str, first: str, second: str, cut: bool = False) -> Reading:
    """Which of two things an answer prefers, or that it takes both, turns both down, or that no rule can tell.

    Args:
        answer: What the model said, without its private reasoning.
        first: The thing that the question named first.
        second: The thing that the question named second.
        cut: Whether the answer ended at a token limit; its last, unfinished sentence then does not count.
    """
    if not answer.strip() or len(answer) > LONGEST:
        return "unclear"
    sentences = _sentences(mark_mentions(answer, first, second))
    if cut:
        sentences = sentences[:-1]
    found = {_read_sentence(sentence) for sentence in sentences} - {"nothing"}
    chosen = found & {FIRST, SECOND}
    if len(chosen) == 1:
        (choice,) = chosen
        # Speaking of the chosen thing alone, turning the other down, or declining before choosing takes nothing back.
        if found <= {choice, f"about {choice}", f"against {_other(choice)}", "declines"}:
            return "first" if choice == FIRST else "second"
        return "unclear"
    if found in ({"neither"}, {"declines"}):
        return "neither"
    return "both" if found == {"both"} else "unclear"


def _other(mark: str) -> str:
    return SECOND if mark == FIRST else FIRST


def _sentences(text: str) -> list[str]:
    """Sentences in lower case with contractions written out; a question keeps its mark, which is its last character."""
    text = text.casefold()
    for pattern, full in _CONTRACTIONS:
        text = re.sub(pattern, full, text)
    pieces = re.split(r"(?<=[.!?])\s+|\n+|;", text)
    return [re.sub(r"\s+", " ", piece).strip(" .!,:()[]-'") for piece in pieces]


def _read_sentence(sentence: str) -> str:
    """A mark (chosen), or: nothing, about MARK, against MARK, both, neither, declines, unclear."""
    marks = set(re.findall(SIGN, sentence))
    if sentence.endswith("?"):
        return "unclear" if len(marks) == 1 else "nothing"
    choice = _chosen(sentence)
    if choice is not None:
        return choice
    core = _without_lead(sentence)
    for name, rules in (("both", grammar.BOTH), ("neither", grammar.NEITHER), ("declines", grammar.DECLINING)):
        if any(rule.fullmatch(core) for rule in rules):
            return name
    if against := _turned_down(sentence):
        return f"against {against}"
    if grammar.REASON_ALONE.match(sentence) and not _shakes(sentence):
        return "nothing"
    takes_back = grammar.TAKES_BACK.search(sentence)
    if not marks:
        return "unclear" if takes_back and not grammar.PRAISE_OF_BOTH.fullmatch(sentence) else "nothing"
    if len(marks) == 1 and not takes_back and not re.search(rf"\bnot\b|\bnever\b|\bif\b|{grammar.DECIDING}", sentence):
        return f"about {marks.pop()}"
    return "unclear"


def _chosen(sentence: str) -> str | None:
    """The mark that a sentence chooses: a choice, alone, after something granted, or with something granted after it."""
    if choice := _plain_choice(sentence):
        return choice
    for joint in _JOINT.finditer(sentence):
        before, after = sentence[: joint.start()], sentence[joint.end() :]
        if (choice := _plain_choice(after)) and _granted_before(before, joint[0], choice):
            return choice
    for turn in _TURN.finditer(sentence):
        if (choice := _plain_choice(sentence[: turn.start()])) and _granted_after(sentence[turn.end() :]):
            return choice
    return None


def _without_lead(clause: str) -> str:
    clause = clause.strip(" ,.:")
    while lead := grammar.LEAD.match(clause):
        clause = clause[lead.end() :]
    return clause


def _plain_choice(clause: str) -> str | None:
    clause = _without_lead(clause)
    for rule in grammar.CHOOSING:
        match = rule.fullmatch(clause)
        if match is None:
            continue
        parts = match.groupdict()
        if parts.get("y") != parts["x"] and _explains(parts.get("why") or "", parts["x"]):
            return str(parts["x"])
    return None


def _turned_down(clause: str) -> str | None:
    clause = _without_lead(clause)
    for rule in grammar.AGAINST:
        if (match := rule.fullmatch(clause)) and _other(match["x"]) not in (match["why"] or ""):
            return str(match["x"])
    return None


def _explains(why: str, choice: str) -> bool:
    """Whether the reason given leaves the choice as it is. Only a "because" may speak ill, or of the other thing."""
    if not re.match(r"\s*[,:;]?\s*(?:because|since|due to)\b", why):
        return not _shakes(why) and _other(choice) not in why and not grammar.ILL.search(why)
    if _other(choice) in why:
        return not _shakes(why)
    return not (grammar.CONDITION.search(why) or re.search(grammar.DECIDING, why) or grammar.TAKES_BACK.search(why))


def _shakes(reason: str) -> bool:
    """Whether a reason holds a choice of its own, takes something back, or turns to something else."""
    found = (pattern.search(reason) for pattern in (grammar.TAKES_BACK, grammar.CONDITION, grammar.BUT))
    return any(found) or re.search(grammar.DECIDING, reason) is not None


def _granted_before(before: str, joint: str, choice: str) -> bool:
    """Whether a choice stands although something was said before it."""
    if re.search(r"\b(?:any|every|no)\w*$|\ball$", before):  # "anything but X"
        return False
    if _turned_down(before) == _other(choice):
        return True
    if re.search(grammar.DECIDING, before):
        return False
    if grammar.CONCEDING.fullmatch(before):
        return True
    return bool(joint.strip(" ,")) and not grammar.CONDITION.search(before)


def _granted_after(after: str) -> bool:
    """Whether a choice stands although something is said after it."""
    if grammar.CHANGING.search(after):
        return False
    return grammar.GRANTING.match(after) is not None or not re.search(SIGN, after)
