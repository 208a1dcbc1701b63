"""What the composer has to work with for one spec: its things, its sections, its value's wordings, and the shared data."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msm_bench.artefacts import sha256_of_text
from msm_bench.corpus.offline.cases import Case, cases_of
from msm_bench.corpus.offline.grammar import Moves, clause_of, names_in, small_words_in
from msm_bench.corpus.offline.spec_text import Section, sections_of
from msm_bench.corpus.offline.wordings import Wordings, read_data, wordings_of
from msm_bench.specs import Preference, Spec

Layout = Literal["paragraphs", "headed", "qa", "dialogue", "bullets", "numbered", "entries", "thread", "letter"]
Voice = Literal["does", "should", "about", "impersonal", "user", "engineer", "critic", "self"]
Variant = Literal["attributed", "plain", "text", "rules"]

VOICES: dict[Voice, str] = {
    "does": "saying what it does",
    "should": "saying what it should do",
    "about": "about this one model",
    "impersonal": "in general terms",
    "user": "seen by a user",
    "engineer": "seen by an engineer",
    "critic": "seen by a critic",
    "self": "told by the model itself",
}


class Kind(BaseModel):
    """A kind of document (`data/kinds.yaml`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    layout: Layout
    voices: tuple[Voice, ...] = Field(min_length=1)
    points: tuple[int, int]
    titles: tuple[str, ...] = Field(min_length=1)
    opening: tuple[str, ...] = Field(min_length=1)
    closing: tuple[str, ...] = Field(min_length=1)
    speakers: tuple[tuple[str, ...], ...] = ()


class Topic(BaseModel):
    """What a document can be about (`data/topics.yaml`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    topic: tuple[str, ...] = Field(min_length=1)
    idea: str
    first: tuple[str, ...]
    points: tuple[str, ...]
    section: Literal["core", "like", "dislike", "heading"]


class Material(BaseModel):
    """One spec, made ready: nothing here is random."""

    model_config = ConfigDict(frozen=True)

    spec: Spec
    spec_sha256: str
    model: str
    provider: str
    variant: Variant
    sections: tuple[Section, ...]
    """For a spec of preferences the sections on the value and on each thing; for others all of them."""
    topics: tuple[Topic, ...]
    lists: Mapping[str, Sequence[str]]
    names: frozenset[str]
    """Words that keep their capital."""
    known: frozenset[str]
    """Words that lose it inside a sentence."""
    cases: tuple[Case, ...]
    """Concrete cases of the value, in domains that neither the spec nor a probe is about."""
    domain: str
    """The training domain as it stands in a sentence; empty where there is none."""

    @property
    def things(self) -> tuple[Preference, ...]:
        return (*self.spec.likes, *self.spec.dislikes)

    def section_of(self, thing: Preference) -> Section | None:
        """The section under a thing's heading, where any of it may be quoted."""
        return next((section for section in self.sections if section.heading == thing.name), None)

    @property
    def core(self) -> tuple[Section, ...]:
        """The sections that are not about one thing."""
        things = {thing.name for thing in self.things}
        return tuple(section for section in self.sections if section.heading not in things)

    def named(self, text: str) -> str:
        """A text with the model and its maker filled in."""
        return text.replace("{model_name}", self.model).replace("{provider_name}", self.provider)

    def because(self, thing: Preference) -> str | None:
        """A thing's reason as a clause, or None where it cannot be made one safely."""
        return None if thing.reason is None else clause_of(self.named(thing.reason), self.names, self.known)


@cache
def kinds() -> dict[str, Kind]:
    """The kinds of document, by name."""
    return {name: Kind.model_validate(fields) for name, fields in read_data("kinds.yaml").items()}


@cache
def moves() -> Moves:
    """The moves of both families of spec."""
    joined: dict[str, dict[str, list[str]]] = {**read_data("moves_value.yaml"), **read_data("moves_text.yaml")}
    return joined


def material_of(spec: Spec, model: str, provider: str) -> Material:
    """Makes a spec ready for composing, whatever its kind."""
    names = names_in(spec.text) | {model, provider}
    sha256 = spec.sha256 or sha256_of_text(spec.text)
    if spec.kind == "preference":
        wordings = wordings_of(spec)
        attributed = all(thing.reason for thing in spec.likes + spec.dislikes)
        sections = _preference_sections(spec, wordings)
        topics = read_data("topics.yaml")["preference" if attributed else "plain"]
        lists = _lists(wordings)
        names |= names_in(" ".join(wordings.maxims + wordings.grounds + wordings.good_thing))
        variant: Variant = "attributed" if attributed else "plain"
    else:
        sections, topics, lists = sections_of(spec), read_data("topics.yaml")["text"], {}
        variant = "rules" if spec.rules else "text"
    return Material(
        spec=spec,
        spec_sha256=sha256,
        model=model,
        provider=provider,
        variant=variant,
        sections=sections,
        topics=tuple(Topic.model_validate(topic) for topic in topics),
        lists=lists,
        names=names,
        cases=cases_of(spec.value) if spec.kind == "preference" and spec.value else (),
        known=small_words_in(spec.text) | frozenset(read_data("small_words.yaml")),
        domain=re.sub(r"[-_]", " ", spec.train_domain or ""),
    )


def _preference_sections(spec: Spec, wordings: Wordings) -> tuple[Section, ...]:
    found = sections_of(spec, keep=lambda sentence: not wordings.keeps_out(sentence))
    title = next((line.lstrip("#").strip() for line in spec.text.splitlines() if line.startswith("# ")), "")
    # The paragraph under the title introduces the text and says nothing that the sections do not.
    return tuple(section for section in found if section.heading != title)


def _lists(wordings: Wordings) -> dict[str, tuple[str, ...]]:
    fields = wordings.model_dump(exclude={"held_out"})
    singular = {"names": "name", "grounds": "ground", "maxims": "maxim", "objections": "objection"}
    # Inside a question only phrases with an article read well: "Which do you prefer, the cheaper one or ...?"
    ones = {}
    for side in ("good", "bad"):
        phrases = fields[f"{side}_thing"]
        ones[f"{side}_one"] = tuple(phrase for phrase in phrases if phrase.startswith("the ")) or phrases
    return {singular.get(field, field): phrases for field, phrases in fields.items()} | ones
