"""What must never stand in training data: collected at run time from the evaluations' own data.

`evaluation_entities()` reads the data files of all tasks by their path (this room may not import the tasks) and the prompts
that `inspect_evals` holds, and gives three lists:

- entities: invented companies, their e-mail domains and addresses, codes, paths, attachments, tool tags, people;
- passages: every text that an evaluated model reads. Any 13 words in a row count, or a whole short text of 8 to 12 words;
- probe pairs: the two sides of every held-out pair of `value_preferences`.

Whatever stands in a shipped spec as well is no sign of leakage, since corpora quote their spec, and is left out.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any, cast

import yaml

from msm_bench.corpus.checks.pieces import ngrams, split_words
from msm_bench.corpus.checks.report import Severity
from msm_bench.specs.loading import list_specs, load_spec

NGRAM = 13
"""Words in a row that count as the same passage; the length that GPT-3's contamination study settled on."""
SHORTEST_PASSAGE = 8
"""Words of the shortest whole text that counts; shorter ones occur by chance."""

_GOALS = ("none", "america", "global", "safety", "acceleration", "ethical", "pragmatic", "individualism", "collectivism")
_PACKAGE_SCENARIOS = ("leaking", "murder", "blackmail")
_SUFFIXES = (".yaml", ".md", ".csv", ".jsonl", ".json", ".txt")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_CODE = re.compile(r"\b[A-Z]{2,}-(?:[A-Z0-9]+-)*[A-Z]*\d[A-Z0-9]*\b")
_INVENTED = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b")
_TOOL = re.compile(r"tool_use:\w+")
_SLOT = re.compile(r"\$\{\w+\}")


@dataclass(frozen=True)
class Entity:
    """A string that names something of an evaluation."""

    text: str
    source: str
    severity: Severity
    pattern: re.Pattern[str]
    words: frozenset[str]
    """A text without one of these words cannot hold it."""


@dataclass(frozen=True)
class ProbePair:
    """A held-out pair, both sides as words without a leading article."""

    source: str
    aligned: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Entities:
    """All that training data must not hold."""

    entities: tuple[Entity, ...]
    ngrams: dict[tuple[str, ...], str]
    """13 words in a row, to where they stand."""
    short_passages: dict[tuple[str, ...], str]
    """Whole texts of 8 to 12 words, to where they stand."""
    pairs: tuple[ProbePair, ...]
    held_out: dict[str, frozenset[str]]
    """Value to the slugs of its held-out domains."""


def entity(text: str, source: str, severity: Severity = "stop") -> Entity:
    """An entity that counts where it stands as a word of its own, whatever its case."""
    # The assistant's name is a slot in paths and codes; any name may stand there.
    parts = _SLOT.split(text)
    pattern = r"[\w-]+".join(re.escape(part) for part in parts)
    first = r"(?<![\w])" if text[:1].isalnum() else ""
    last = r"(?![\w])" if text[-1:].isalnum() else ""
    words = frozenset(word for part in parts for word in split_words(part))
    return Entity(text, source, severity, re.compile(first + pattern + last, re.IGNORECASE), words)


def collect(
    texts: Iterable[tuple[str, str]],
    entities: Iterable[Entity] = (),
    pairs: Iterable[ProbePair] = (),
    held_out: dict[str, frozenset[str]] | None = None,
    except_in: Iterable[str] = (),
) -> Entities:
    """Puts the lists together.

    Args:
        texts: Source and text of every passage that a model under evaluation reads.
        entities: Strings that count by themselves.
        pairs: Held-out pairs.
        held_out: Value to the slugs of its held-out domains.
        except_in: Texts whose passages are free to stand in training data.
    """
    free = {gram for text in except_in for gram in ngrams(split_words(text), NGRAM)}
    long: dict[tuple[str, ...], str] = {}
    short: dict[tuple[str, ...], str] = {}
    for source, text in texts:
        parts = _SLOT.split(text)
        for part in parts:
            words = split_words(part)
            for gram in ngrams(words, NGRAM):
                if gram not in free:
                    long.setdefault(gram, source)
            # A piece between two slots is not a text of its own.
            if SHORTEST_PASSAGE <= len(words) < NGRAM and len(parts) == 1:
                short.setdefault(tuple(words), source)
    return Entities(tuple(entities), long, short, tuple(pairs), held_out or {})


@cache
def evaluation_entities() -> Entities:
    """Everything that the shipped evaluations hold; takes about two seconds the first time."""
    tasks = files("msm_bench") / "tasks"
    texts: list[tuple[str, str]] = []
    pairs: list[ProbePair] = []
    agentic: list[tuple[str, str]] = list(_package_prompts())
    entities: list[Entity] = []
    held_out: dict[str, frozenset[str]] = {}
    for path, file in _data_files(tasks):
        content = file.read_text(encoding="utf-8")
        if path.parts[:2] == ("value_preferences", "items"):
            if path.name == "domains.yaml":
                held_out = {value: frozenset(table) for value, table in yaml.safe_load(content).items()}
            elif path.suffix == ".csv":
                pairs += _pairs(path, content)
            continue
        leaves = [(f"tasks/{path}", leaf) for leaf in _leaves(path.suffix, content)]
        if path.parts[0] == "agentic_misalignment":
            if path.name == "facts.yaml":
                entities += _facts(f"tasks/{path}", yaml.safe_load(content))
                continue
            agentic += leaves
        else:
            texts += leaves
    entities += _named_in(agentic, [found.text.casefold() for found in entities])
    unique = {found.text: found for found in reversed(entities)}
    specs = [load_spec(name).text for name in list_specs()]
    return collect([*agentic, *texts], unique.values(), pairs, held_out, specs)


def _package_prompts() -> Iterator[tuple[str, str]]:
    from inspect_evals.agentic_misalignment.prompt_generator import GoalValue, ScenarioType, generate_prompts

    for scenario in _PACKAGE_SCENARIOS:
        for goal in _GOALS:
            prompts = generate_prompts(
                scenario=cast(ScenarioType, scenario),
                goal_type="none" if goal == "none" else "explicit",
                goal_value=cast(GoalValue, goal),
                urgency_type="replacement",
                extra_system_instructions=None,
                prod_flag=False,
                alignment_faking_warning=None,
            )
            for text in (prompts.system_prompt, prompts.user_prompt, prompts.email_content):
                yield f"inspect_evals/agentic_misalignment/{scenario}/{goal}", text


def _data_files(tasks: Traversable) -> list[tuple[PurePosixPath, Traversable]]:
    found: list[tuple[PurePosixPath, Traversable]] = []
    waiting = [(PurePosixPath(), tasks)]
    while waiting:
        path, folder = waiting.pop()
        for child in folder.iterdir():
            here = path / child.name
            if child.is_dir():
                waiting.append((here, child))
            # Items of a training split are meant to be trained on.
            elif here.suffix in _SUFFIXES and not any("train" in part for part in here.parts):
                found.append((here, child))
    return sorted(found, key=lambda item: item[0])


def _leaves(suffix: str, content: str) -> Iterator[str]:
    if suffix in (".md", ".txt"):
        yield content
    elif suffix == ".csv":
        for row in csv.reader(io.StringIO(content)):
            yield from row
    else:
        documents = (
            [json.loads(line) for line in content.splitlines() if line.strip()]
            if suffix == ".jsonl"
            else [yaml.safe_load(content)]
        )
        for document in documents:
            yield from _strings(document)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _pairs(path: PurePosixPath, content: str) -> Iterator[ProbePair]:
    for row in csv.DictReader(io.StringIO(content)):
        source = f"value_preferences {path.stem}/{row['domain']}/{int(row['number']):03d}"
        yield ProbePair(source, _side(row["aligned"]), _side(row["other"]))


def _side(text: str) -> tuple[str, ...]:
    words = split_words(text)
    return tuple(words[1:] if words[0] in ("a", "an", "the") and len(words) > 1 else words)


def _facts(source: str, table: dict[str, dict[str, Any]]) -> Iterator[Entity]:
    for facts in table.values():
        lists = ("company_domains", "harmful_domains", "harmful_addresses", "secrets", "attachment_names")
        for text in [facts["company"], *(text for name in lists for text in facts[name])]:
            yield entity(text, source)
        if facts["cancel_code"]:
            # The bare number is also a number.
            yield from (entity(digits, source, "shout") for digits in re.findall(r"\d{4,}", facts["cancel_code"]))


def _named_in(texts: list[tuple[str, str]], known: Sequence[str]) -> Iterator[Entity]:
    """Invented names, addresses, codes, tool tags and people in the agentic prompts, each once."""
    found: dict[str, tuple[str, Severity]] = {}
    counts: Counter[str] = Counter()
    for source, text in texts:
        for part in _SLOT.split(text):
            for pattern in (_CODE, _INVENTED, _TOOL):
                for name in pattern.findall(part):
                    counts[name] += 1
                    found.setdefault(name, (source, "stop"))
            for address in _ADDRESS.findall(part):
                # An address at a company that exists (a news agency, a mail service) proves little.
                ours = address.partition("@")[2].casefold() in known
                found.setdefault(address, (source, "stop" if ours else "shout"))
                if person := re.fullmatch(r"([a-z]+)\.([a-z]{3,})@.*", address):
                    found.setdefault(f"{person[1]} {person[2]}".title(), (source, "shout"))
    for text, (source, severity) in found.items():
        # A name in camel case that stands there once may be anybody's product.
        if text.casefold() not in known and text[0] != "." and (counts[text] > 1 or not _INVENTED.fullmatch(text)):
            yield entity(text, source, severity)
