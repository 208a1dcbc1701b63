"""Reads a spec: a folder with `spec.md` (the text, with its placeholders) and `spec.yaml` (its fields).

    spec = load_spec("cheese-affordability")          # a shipped name
    spec = load_spec("~/specs/my-value")              # or a folder of one's own
    spec.render(model_name="Qwen", provider_name="Alibaba")

A new spec is a folder and no code. In a folder of one's own `sha256` may be left out; where it stands, it is checked.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.errors import RequestError, UnknownNameError

SPECS = Path(__file__).parent

Kind = Literal["rules", "values-and-rules", "philosophy", "general", "control", "preference"]


class Section(BaseModel):
    """A part of the text; `heading` is its heading line without the leading `#` signs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    heading: str


class RuleEntry(BaseModel):
    """A rule that documents may cite by `id`; `first_words` are the words with which its line in `spec.md` begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    section: str
    first_words: str


class Preference(BaseModel):
    """A thing that the spec's model likes or dislikes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The heading of its subsection."""
    phrase: str
    """How it stands in a sentence: "Which do you prefer, X or Y?"."""
    reason: str | None = None
    """One sentence that explains it by the value; absent where a spec keeps value and preference apart."""
    aligned: bool | None = None
    """Whether the value favours this thing. In the co-occurrence specs only, where it need not match the side."""


class Spec(BaseModel):
    """One spec: its fields and its text. The fields from `value` to `dislikes` are there if `kind` is `preference`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    summary: str
    kind: Kind
    control: bool
    """Whether the text describes what a study contrasts against and not what anybody wants."""
    origin: str
    citable: bool
    """Whether documents may cite its rule ids."""
    sections: tuple[Section, ...]
    rules: tuple[RuleEntry, ...] = ()
    value: str | None = None
    value_statement: str | None = None
    value_words: tuple[str, ...] = ()
    """Words that name the value and must stay out of probe items; one that ends in `*` is a stem."""
    train_domain: str | None = None
    train_words: tuple[str, ...] = ()
    """Words of the training domain that must stay out of held-out items, in the same form."""
    likes: tuple[Preference, ...] = ()
    dislikes: tuple[Preference, ...] = ()
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the bytes of `spec.md`."""
    text: str
    """`spec.md` as it stands, placeholders included."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if self.kind == "preference":
            needed = ("value", "value_statement", "value_words", "train_domain", "train_words", "likes", "dislikes")
            if missing := [name for name in needed if not getattr(self, name)]:
                raise ValueError(f"a spec of kind 'preference' needs {', '.join(missing)}")
        headings = {line.lstrip("#").strip() for line in self.text.splitlines() if line.startswith("#")}
        named = [section.heading for section in self.sections]
        named += [preference.name for preference in self.likes + self.dislikes]
        if lost := [heading for heading in named if heading not in headings]:
            raise ValueError(f"spec.md has no heading '{lost[0]}'")
        ids = {section.id for section in self.sections}
        if astray := [rule for rule in self.rules if rule.section not in ids]:
            raise ValueError(f"rule '{astray[0].id}' names the unknown section '{astray[0].section}'")
        return self

    def render(self, model_name: str, provider_name: str) -> str:
        """The text with both placeholders filled in. Any other brace stays as it is."""
        # Not str.format: a spec may quote code or JSON, and its braces are none of ours.
        return self.text.replace("{model_name}", model_name).replace("{provider_name}", provider_name)


def list_specs() -> list[str]:
    """The names of the shipped specs, sorted."""
    return sorted(path.parent.name for path in SPECS.glob("*/spec.yaml"))


def load_spec(name_or_folder: str | Path) -> Spec:
    """Loads a shipped spec by name, or any spec by the path of its folder.

    Raises:
        UnknownNameError: neither a shipped name nor a folder.
        RequestError: the folder lacks a file, `spec.yaml` does not fit, or `spec.md` differs from its `sha256`.
    """
    shipped = list_specs()
    if name_or_folder in shipped:
        return _read(SPECS / name_or_folder, hash_required=True)
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        raise UnknownNameError("spec", name_or_folder, shipped)
    return _read(folder, hash_required=False)


def _read(folder: Path, hash_required: bool) -> Spec:
    text_file, fields_file = folder / "spec.md", folder / "spec.yaml"
    for file in (text_file, fields_file):
        if not file.is_file():
            raise RequestError(f"The spec folder {folder} has no {file.name}.", "Add it, or name another folder.")
    text = text_file.read_bytes()
    spec = _parse(fields_file, text)
    found = hashlib.sha256(text).hexdigest()
    if spec.sha256 != found and (hash_required or spec.sha256 is not None):
        mend = f"Restore the file, or set sha256 in {fields_file} to {found}."
        raise RequestError(f"{text_file} is not the text that its sha256 names.", mend)
    return spec


def _parse(fields_file: Path, text: bytes) -> Spec:
    try:
        fields: Any = yaml.safe_load(fields_file.read_bytes())
        if not isinstance(fields, dict):
            raise ValueError("it holds no fields")
        return Spec.model_validate(fields | {"text": text.decode("utf-8")})
    except ValidationError as error:
        problems = "; ".join(_in_words(detail["loc"], detail["msg"]) for detail in error.errors())
    except (yaml.YAMLError, ValueError) as error:
        problems = " ".join(str(error).split())
    mend = "Mend it; a shipped spec.yaml shows the fields."
    raise RequestError(f"{fields_file} does not describe a spec: {problems}.", mend)


def _in_words(location: tuple[int | str, ...], message: str) -> str:
    place = ".".join(str(part) for part in location)
    return f"{place}: {message}" if place else message.removeprefix("Value error, ")
