"""Finds which of two offered things a text speaks of, and puts a mark in the place of each mention.

A mention is the thing in full (with or without its article), a part of it that is long enough and fits no part of the other
thing, or its place: "the latter", "option B", "the first one". A word that is misspelt is no mention.
"""

import re
import unicodedata
from functools import lru_cache

FIRST, SECOND = "\ue001", "\ue002"
"""Marks of the first-named and the second-named thing; private-use characters, dropped from what is read."""

SIGN = f"[{FIRST}{SECOND}]"

_ARTICLES = ("a", "an", "the", "some")
_SMALL = frozenset(
    (
        *("a", "an", "the", "some", "of", "in", "on", "at", "by", "for", "from", "with", "to", "into", "onto", "over", "under"),
        *("off", "through", "down", "up", "beside", "between", "around", "across", "behind", "near", "and", "or", "as", "than"),
        *("its", "his", "her", "their", "my", "your", "this", "that", "is", "are"),
    )
)
_HEAD_ENDS = _SMALL - {"of", "and", "a", "an", "the", "some", "its", "his", "her", "their", "my", "your", "this", "that"}
_WORD = re.compile(r"\w+(?:'\w+)?")
_NOUN = r"(?:one|option|choice|item|thing|stance|statement|view|person|position|opinion|alternative)"
_AFTER = rf"(?=\s*(?:$|[.,;:!?)\]\n{FIRST}{SECOND}]|(?:because|since|over|is|would|for|rather|instead|more|than|not|please)\b))"
# Case counts here: "A" may be a label, "a" is an article.
_LETTER = rf"(?:\(\s*{{letter}}\s*\)|\b{{letter}}\b){_AFTER}(?:\s*[.:)]*\s*(?={SIGN}))?"
_PLACES = tuple(
    (
        re.compile(
            rf"\bthe (?:{ordinal}|{side})(?: {_NOUN})?\b|(?<!\bmy )\b(?:{ordinal}) {_NOUN}\b"
            rf"|\b(?:option|choice|answer|stance|statement|view|position|number) ?#?\(?(?:{letter}|{number}"
            rf"|{word})\b\)?{_AFTER}",
            re.IGNORECASE,
        ),
        re.compile(rf"(?:\b[Oo]ption |\b[Ss]tance |\b[Aa]nswer )?{_LETTER.format(letter=letter)}"),
        mark,
    )
    for ordinal, side, letter, number, word, mark in (
        ("first|1st", "former", "A", "1", "one", FIRST),
        ("second|2nd", "latter", "B", "2", "two", SECOND),
    )
)
_TWICE = re.compile(rf"({SIGN})\s*[,:(\-]?\s*\1\)?")


def plain(text: str) -> str:
    """The text without accents, markup and typographic signs; case and line breaks stay."""
    text = re.sub(r"[^\S\n]+", " ", unicodedata.normalize("NFKD", text)).strip()
    text = "".join(ch for ch in text if not unicodedata.combining(ch) and ch not in FIRST + SECOND)
    text = re.sub(r"[‘’ʼ´`]", "'", text)
    text = re.sub(r"</?\w[^<>\n]{0,40}>", " ", text)
    text = re.sub(r"[“”„«»\"*_{}]", "", text)
    text = re.sub(r"[‐‑‒]", "-", text)
    text = re.sub(r"\s*(?:[–—―]|(?<=\s)--?(?=\s))\s*", " ; ", text)
    text = re.sub(r"(?m)^\s*(?:[>#]+|[-•]|\d+[.)])\s+", "", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", "", text)
    return re.sub(r"[^\S\n]+", " ", text).strip()


def mark_mentions(text: str, first: str, second: str) -> str:
    """Plain text in which every mention of either thing is a mark; all else stays."""
    text = plain(text)
    pattern, owners = _pattern(first, second)
    if pattern is not None:
        text = pattern.sub(lambda match: owners[_key(match[1])], text)
    for spelled, letter, mark in _PLACES:
        text = letter.sub(mark, spelled.sub(mark, text))
    while (shorter := _TWICE.sub(r"\1", text)) != text:
        text = shorter
    return text


@lru_cache(maxsize=4096)
def _pattern(first: str, second: str) -> tuple[re.Pattern[str] | None, dict[str, str]]:
    """What matches a mention (the words in group 1), and whose mention it is."""
    words = (_words(first), _words(second))
    owners: dict[str, str] = {}
    for own, other, mark in ((words[0], words[1], FIRST), (words[1], words[0], SECOND)):
        for form in _short_forms(own, other):
            owners[" ".join(form)] = mark
    full = {" ".join(own): mark for own, mark in zip(words, (FIRST, SECOND), strict=True) if own}
    if len(full) < 2:
        return None, {}
    owners.update(full)
    forms = sorted(owners, key=lambda form: (-len(form), form))
    # A title may end in a sign of its own ("Mamma Mia!"), which then ends no sentence.
    ends = {" ".join(own): re.escape(_end(thing)) for own, thing in zip(words, (first, second), strict=True) if _end(thing)}
    alternatives = "|".join(
        r"[^\w\n]{1,4}".join(re.escape(word) for word in form.split()) + (f"(?:{ends[form]})?" if form in ends else "")
        for form in forms
    )
    articles = "|".join(_ARTICLES)
    return re.compile(rf"(?<![\w'])(?:(?:{articles})\s+)?({alternatives})(?![\w'])", re.IGNORECASE), owners


def _key(mention: str) -> str:
    return " ".join(_WORD.findall(mention.casefold()))


def _words(thing: str) -> list[str]:
    article = rf"^(?:{'|'.join(_ARTICLES)})\s+(?=\w)"
    return _WORD.findall(re.sub(article, "", plain(thing).casefold()))


def _end(thing: str) -> str:
    return re.sub(r".*\w", "", plain(thing), flags=re.DOTALL)


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    return word.rstrip("s") if len(word) > 3 else word


def _short_forms(own: list[str], other: list[str]) -> list[list[str]]:
    """Parts of a thing that stand for it: its head, and word sequences that hold half of its content words or two of them.

    Each must hold a content word that the other thing has in no form.
    """
    theirs = {_stem(word) for word in other}
    content = [word for word in own if word not in _SMALL]
    head_end = next((place for place, word in enumerate(own) if place and word in _HEAD_ENDS), len(own))
    if len(own) > 14:  # a stance: parts of it are no names for it
        return []
    forms = []
    for start in range(len(own)):
        for end in range(start + 1, len(own) + 1):
            part = own[start:end]
            inside = [word for word in part if word not in _SMALL]
            if part[0] in _SMALL or part[-1] in _SMALL or all(_stem(word) in theirs for word in inside):
                continue
            if len(inside) >= 2 or 2 * len(inside) >= len(content) or (start == 0 and end == head_end):
                forms.append(part)
    return forms
