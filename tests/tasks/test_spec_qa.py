"""The questions are what they claim to be, and the task asks them as it says."""

import itertools
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasketch import MinHash
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.specs import list_specs, load_spec
from msm_bench.specs.loading import SPECS
from msm_bench.tasks.agentic_misalignment.scenarios import EXTRA_SCENARIOS, SCENARIOS, build_condition
from msm_bench.tasks.spec_qa import spec_qa
from msm_bench.tasks.spec_qa.questions import (
    DIMENSIONS,
    FOLDER,
    FORMS,
    load_questions,
    questions_sha256,
    read_questions,
)
from msm_bench.tasks.spec_qa.spec_qa import VERSION

PINNED = {"1-A": "370eb296235bf051a6e3724ce1be46ec32e32bda53401d081134491a479799ba"}
"""Task version to hash of the questions: a changed question needs a new version, and a new line here."""

SIMILAR = 0.35
QUESTIONS = [question for dimension in DIMENSIONS for question in load_questions(dimension)]


def samples(task: Task) -> list[Sample]:
    return list(task.dataset)


def shingles(text: str) -> set[str]:
    text = re.sub(r"\W+", " ", text).lower()
    return {text[i : i + 5] for i in range(len(text) - 4)}


def test_the_questions_are_the_pinned_ones() -> None:
    assert PINNED[VERSION] == questions_sha256()


def test_every_dimension_has_its_22_questions_in_their_forms() -> None:
    assert len(QUESTIONS) == 154 and len(DIMENSIONS) == 7
    for dimension in DIMENSIONS:
        questions = load_questions(dimension)
        assert [question.id for question in questions] == [f"{dimension}/{n:02d}" for n in range(1, 23)]
        assert Counter(q.form for q in questions) == {"direct": 6, "dilemma": 6, "deployment": 5, "justification": 5}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(DIMENSIONS)


def test_no_two_questions_are_alike() -> None:
    sketches = {}
    for question in QUESTIONS:
        sketches[question.id] = MinHash(num_perm=256, seed=1)
        for shingle in shingles(question.text):
            sketches[question.id].update(shingle.encode())
    (first, second) = max(itertools.combinations(sketches, 2), key=lambda ids: sketches[ids[0]].jaccard(sketches[ids[1]]))
    assert sketches[first].jaccard(sketches[second]) < SIMILAR, (first, second)


def test_no_opening_or_closing_is_a_habit() -> None:
    openings = Counter(" ".join(q.text.lower().split()[:3]) for q in QUESTIONS)
    closings = Counter(" ".join(q.text.lower().split()[-4:]) for q in QUESTIONS)
    assert max(openings.values()) <= 2 and max(closings.values()) <= 2


def test_the_forms_read_as_they_are_called() -> None:
    words = {form: [len(q.text.split()) for q in QUESTIONS if q.form == form] for form in FORMS}
    assert max(words["direct"]) < min(30, *words["dilemma"])
    assert all(30 <= n <= 80 for n in words["dilemma"] + words["deployment"])
    assert all(not re.search(r"\{|\bspec\b|\bdocument\b|\bconstitution\b", q.text, re.IGNORECASE) for q in QUESTIONS)


def test_no_question_gives_the_agentic_scenarios_away() -> None:
    """The talk is measured apart from the behaviour: nothing here rehearses the other task's cases."""
    names: set[str] = set()
    for scenario in SCENARIOS + EXTRA_SCENARIOS:
        facts = build_condition(scenario, "none").facts
        names |= {facts.company, *facts.company_domains, *facts.harmful_domains, *facts.secrets}
    text = "\n".join(question.text for question in QUESTIONS).lower()
    assert names and not [name for name in names if name.lower() in text]
    assert not re.search(r"\be-?mails?\b|\bserver room\b|\bweights\b", text)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("form: direct", "form: rhetorical", "form"),
        ("id: transparency/02", "id: transparency/01", "same id"),
        ("id: transparency/02", "id: corrigibility/02", "another dimension"),
        ("dimension: transparency", "dimension: candour", "dimension"),
        ("about: >-", "about: [", "transparency.yaml"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (FOLDER / "transparency.yaml").read_text(encoding="utf-8")
    broken = tmp_path / "transparency.yaml"
    broken.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RequestError, match=says) as raised:
        read_questions(broken)
    assert "transparency.yaml" in str(raised.value)


def test_all_questions_are_asked_once_in_one_turn_against_the_default_spec() -> None:
    task = spec_qa()
    assert [sample.id for sample in samples(task)] == [question.id for question in QUESTIONS]
    for sample, question in zip(samples(task), QUESTIONS, strict=True):
        assert isinstance(sample.input, list)
        assert [(type(message), message.text) for message in sample.input] == [(ChatMessageUser, question.text)]
        assert sample.metadata is not None
        assert sample.metadata["dimension"] == question.dimension and sample.metadata["form"] == question.form
        assert sample.metadata["spec"]["name"] == "philosophy"
    assert task.config.temperature == 0.7
    assert task.metadata == {
        "task_version": VERSION,
        "questions_sha256": questions_sha256(),
        "spec": "philosophy",
        "spec_sha256": load_spec("philosophy").sha256,
        "in_context": False,
    }


@pytest.mark.parametrize("spec", list_specs())
def test_any_shipped_spec_can_be_rated_against_and_put_in_context(spec: str) -> None:
    task = spec_qa(spec=spec, dimension="corrigibility", agent_name="Mira", provider_name="Northwind", in_context=True)
    rendered = load_spec(spec).render("Mira", "Northwind")
    assert "Mira" in rendered and "{model_name}" not in rendered
    for sample in samples(task):
        assert isinstance(sample.input, list)
        assert [type(message) for message in sample.input] == [ChatMessageSystem, ChatMessageUser]
        assert sample.metadata is not None
        assert sample.input[0].text == rendered == sample.metadata["spec"]["text"]


def test_a_spec_of_ones_own_by_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(SPECS / "general", folder)
    (folder / "spec.md").write_text((folder / "spec.md").read_text().replace("wise", "shrewd"), encoding="utf-8")
    fields = (folder / "spec.yaml").read_text(encoding="utf-8")
    (folder / "spec.yaml").write_text(re.sub(r"(?m)^sha256:.*\n?", "", fields), encoding="utf-8")
    task = spec_qa(spec=str(folder), dimension="transparency")
    (sample, *_) = samples(task)
    assert sample.metadata is not None and "a shrewd and kind person" in sample.metadata["spec"]["text"]
    assert task.metadata is not None
    assert len(task.metadata["spec_sha256"]) == 64 and task.metadata["spec_sha256"] != load_spec("general").sha256


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ("transparency", ["transparency"]),
        ("transparency, goal-rigidity", ["transparency", "goal-rigidity"]),
        (["scope-of-action", "scope-of-action"], ["scope-of-action"]),
        ("all", list(DIMENSIONS)),
    ],
)
def test_dimensions_by_name_and_list(given: str | list[str], chosen: list[str]) -> None:
    found = [sample.metadata["dimension"] for sample in samples(spec_qa(dimension=given)) if sample.metadata]
    assert list(dict.fromkeys(found)) == chosen and len(found) == 22 * len(chosen)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"spec": "filosofy"}, UnknownNameError, "philosophy"),
        ({"spec": ""}, UnknownNameError, "rules-expanded"),
        ({"spec": None}, UnknownNameError, "cheese-america"),
        ({"dimension": "honesty"}, UnknownNameError, "loyalty-under-conflict"),
        ({"dimension": "transparancy"}, UnknownNameError, "Did you mean 'transparency'"),
        ({"dimension": ["all", "transparency"]}, UnknownNameError, "resource-acquisition"),
        ({"dimension": []}, RequestError, "resource-acquisition"),
        ({"in_context": "maybe"}, RequestError, "in_context=true"),
        ({"agent_name": " "}, RequestError, "agent_name=NAME"),
        ({"provider_name": ""}, RequestError, "provider_name=NAME"),
    ],
)
def test_a_wrong_argument_raises_with_what_is_valid(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        spec_qa(**arguments)
