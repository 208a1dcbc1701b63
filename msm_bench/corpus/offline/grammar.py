"""The grammar: sentence templates in YAML, filled in with facts, wordings and verb forms.

Notation of a template:

    (often|usually)     one of the alternatives
    [good_thing]        a wording, or a passage that the document supplies; `.cap` and `.low` change its first letter
    {like}              a fact; `.cap` and `.low` as above. A template whose fact is missing is not drawn
    [good_thing.again]  the phrase that this sentence drew last for the symbol; `.again_cap` with a capital
    {S} {s} {o} {p} {P} the model: as subject of the sentence, again as subject, as object, possessive ("its"), possessive
                        at the start ("Qwen's"). In the voice `self` they are I, I, me, my, My
    {N}                 as {S}, but never a pronoun of the third person, where one could be misread
    ~prefer~ ~-like~    verb and negated verb, in the mode of the voice: prefers, should prefer, prefer
    ~+lean~             a second verb after a first one: leans, lean
    ~=see~              always indicative: sees, see

A move is a list of templates by voice: `any`, a voice's own list (added), and instead of both `<voice> only`,
`<variant> only` or `<voice> <variant> only`.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

Moves = Mapping[str, Mapping[str, Sequence[str]]]

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SYMBOL = re.compile(r"\[([a-z_]+)(?:\.(cap|low|again|again_cap))?\]")
_FACT = re.compile(r"\{([A-Za-z_]+2?)(?:\.(cap|low))?\}")
_VERB = re.compile(r"~([-+=]?)([a-z]+)~")
_SUBJECTS = {"S", "N", "s", "o", "p", "P"}
_IRREGULAR = {"be": "is", "have": "has", "do": "does", "go": "goes"}
_MODALS = ("should", "should", "should", "should", "is meant to", "ought to")


@dataclass
class Draft:
    """What one document knows while it is composed."""

    rng: random.Random
    voice: str
    variant: str
    """"attributed", "plain", "text" or "rules": which lists of a move apply."""
    facts: dict[str, str]
    lists: Mapping[str, Sequence[str]]
    """Wordings by symbol."""
    suppliers: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)
    """Symbols that the document supplies anew at each use; None where it has nothing left."""
    names: frozenset[str] = frozenset()
    """Words that keep their capital inside a sentence."""
    used: set[str] = field(default_factory=set)
    named: bool = False
    """Whether the model was named in this paragraph."""

    def new_paragraph(self) -> None:
        """Pronouns may not reach back over a paragraph's end."""
        self.named = False


def lower_start(text: str, names: frozenset[str]) -> str:
    """The text with a small first letter, unless its first word is a name."""
    first = re.split(r"[^\w'’-]", text, maxsplit=1)[0]
    if first in names or (len(first) > 1 and first.isupper()) or first == "I":
        return text
    return text[:1].lower() + text[1:]


def cap_start(text: str) -> str:
    """The text with its first letter a capital; quotation marks before it are passed over."""
    at = next((i for i, character in enumerate(text) if character.isalpha()), 0)
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def clause_of(sentence: str, names: frozenset[str], known: frozenset[str]) -> str | None:
    """A sentence as a clause, without its full stop; None where it is unsafe to take its capital away or keep it.

    `known` holds words that are certainly no names: "Dairymen" may become "dairymen" if the spec writes it so elsewhere.
    """
    first = re.split(r"[^\w'’-]", sentence, maxsplit=1)[0]
    body = sentence.rstrip(".")
    if first in names:
        return body
    if first.lower() in known:
        return body[:1].lower() + body[1:]
    return None


def names_in(text: str) -> frozenset[str]:
    """Words with a capital that do not begin a sentence."""
    return frozenset(re.findall(r"(?<=[a-z,;] )[A-ZÉ][\w'’-]*", text)) - {"I"}


def small_words_in(text: str) -> frozenset[str]:
    """Words that a text writes with a small letter."""
    return frozenset(re.findall(r"\b[a-zé][\w'’-]*", text))


def pool(moves: Moves, move: str, voice: str, variant: str) -> list[str]:
    """The templates that a move offers to a voice in a variant."""
    lists = moves[move]
    for key in (f"{voice} {variant} only", f"{variant} only", f"{voice} only"):
        if key in lists:
            return list(lists[key])
    # A voice's own sentences are what makes it a voice, so they count twice.
    return [*lists.get("any", ()), *lists.get(voice, ()), *lists.get(voice, ())]


def sentence(moves: Moves, move: str, draft: Draft) -> str | None:
    """One sentence (or few) for a move, of a template that this document has not used; None where none is left."""
    templates = pool(moves, move, draft.voice, draft.variant)
    draft.rng.shuffle(templates)
    for template in templates:
        if template not in draft.used and _can_fill(template, draft):
            text = fill(template, draft)
            if text is not None:
                draft.used.add(template)
                return text
    return None


def fill(template: str, draft: Draft) -> str | None:
    """A template filled in, its first letter a capital; None where a supplier has nothing left."""
    while match := _CHOICE.search(template):
        template = template[: match.start()] + draft.rng.choice(match.group(1).split("|")) + template[match.end() :]
    parts: list[str] = []
    drawn: dict[str, str | None] = {}
    at = 0
    for match in _SYMBOL.finditer(template):
        name, change = match.group(1), match.group(2) or ""
        found = drawn[name] if change.startswith("again") else _symbol(name, draft)
        if found is None:
            return None
        drawn[name] = found
        parts += [template[at : match.start()], _changed(found, change.removeprefix("again").strip("_"), draft.names)]
        at = match.end()
    # Quoted passages must not be read as templates, so facts and verbs are filled in around them.
    pieces = [*parts, template[at:]]
    done = [_facts_and_verbs(piece, draft) if index % 2 == 0 else piece for index, piece in enumerate(pieces)]
    text = re.sub(r"\s+([,.;:?!])", r"\1", re.sub(r" {2,}", " ", "".join(done))).strip()
    return cap_start(re.sub(r"([.?!])([”’]?)\.(?=\s|$)", r"\1\2", text))


def _can_fill(template: str, draft: Draft) -> bool:
    return all(name in _SUBJECTS or name in draft.facts for name, _ in _FACT.findall(template))


def _symbol(name: str, draft: Draft) -> str | None:
    if name in draft.suppliers:
        return draft.suppliers[name]()
    fresh = [phrase for phrase in draft.lists[name] if f"{name}:{phrase}" not in draft.used]
    phrase = draft.rng.choice(fresh or list(draft.lists[name]))
    draft.used.add(f"{name}:{phrase}")
    return phrase


def _changed(text: str, change: str | None, names: frozenset[str]) -> str:
    if change == "cap":
        return cap_start(text)
    return lower_start(text, names) if change == "low" else text


def _facts_and_verbs(piece: str, draft: Draft) -> str:
    def fact(match: re.Match[str]) -> str:
        name, change = match.groups()
        found = _subject(name, draft) if name in _SUBJECTS else draft.facts[name]
        return _changed(found, change, draft.names)

    return _VERB.sub(lambda match: _verb(match.group(1), match.group(2), draft), _FACT.sub(fact, piece))


def _subject(name: str, draft: Draft) -> str:
    if draft.voice == "self":
        return {"S": "I", "N": "I", "s": "I", "o": "me", "p": "my", "P": "my"}[name]
    model = draft.facts["M"]
    first, draft.named = not draft.named, True
    if name == "N":
        return model
    if name == "S":
        return model if first else draft.rng.choice((model, model, "it", "it", "the model"))
    if first:
        return f"{model}'s" if name in "pP" else model
    return {"s": "it", "o": "it", "p": "its", "P": "its"}[name]


def _verb(mark: str, verb: str, draft: Draft) -> str:
    first_person = draft.voice == "self"
    if draft.voice == "should" and mark != "=":
        if mark == "+":
            return verb
        return f"should not {verb}" if mark == "-" else f"{draft.rng.choice(_MODALS)} {verb}"
    if mark == "-":
        return f"do not {verb}" if first_person else f"does not {verb}"
    if first_person:
        return "am" if verb == "be" else verb
    return third_person(verb)


def third_person(verb: str) -> str:
    """The third person singular of a verb: prefers, passes, carries."""
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    return re.sub(r"(?<=[^aeiou])y$", "ie", verb) + "s"
