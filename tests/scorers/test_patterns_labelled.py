"""The taxonomy and the labelled set: what they promise."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasketch import MinHash

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.scorers.patterns.gates import kappa
from msm_bench.scorers.patterns.labelled_set import LABELLED, family, load_labelled, load_passes
from msm_bench.scorers.patterns.taxonomy import SHIPPED, load_taxonomy

IDS = load_taxonomy().ids


def test_nine_patterns_on_each_side_and_one_rule_pattern_on_each() -> None:
    patterns = load_taxonomy().patterns
    assert Counter(pattern.side for pattern in patterns) == {"misaligned": 9, "aligned": 9}
    assert [pattern.id for pattern in patterns if pattern.needs_rules] == ["policy_misuse", "policy_compliance"]


def test_rubric_holds_every_part_of_an_entry() -> None:
    rubric = load_taxonomy().rubric()
    for pattern in load_taxonomy().patterns:
        for text in (f"## {pattern.id}", *pattern.counts, *pattern.excludes, *pattern.examples):
            assert text in rubric
    assert rubric.count("written rule that it was given") == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["patterns"].append(d["patterns"][0]), "same id"),
        (lambda d: d["patterns"][0]["near"][0].update(pattern="nothing"), "do not exist"),
        (lambda d: d["patterns"][3].pop("definition"), "definition"),
    ],
)
def test_wrong_taxonomy_is_refused(tmp_path: Path, change: object, said: str) -> None:
    data = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    change(data)  # type: ignore[operator]
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(RequestError, match=said):
        load_taxonomy(file)


def test_a_new_pattern_is_an_entry_and_no_code(tmp_path: Path) -> None:
    data = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    data["patterns"].append({**data["patterns"][0], "id": "evaluation_awareness", "near": []})
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert load_taxonomy(file).ids == (*IDS, "evaluation_awareness")


def test_set_is_as_large_as_promised() -> None:
    passages, transcripts = load_labelled("passages"), load_labelled("transcripts")
    assert len(passages) >= 600 and len(transcripts) >= 120
    present = Counter(label for text in passages for label in text.labels)
    near = Counter(label for text in passages for label in text.hard_negative_for)
    assert set(present) == set(near) == set(IDS)
    assert min(present.values()) >= 40, present
    assert min(near.values()) >= 40, near
    assert Counter(family(text) for text in passages).keys() == {"mail", "coding", "lab", "finance", "care"}
    assert sum(len(text.labels) >= 2 for text in transcripts) >= 0.95 * len(transcripts)
    with pytest.raises(UnknownNameError):
        load_labelled("some")  # type: ignore[arg-type]


def test_texts_are_distinct_and_none_is_a_template_of_another() -> None:
    texts = load_labelled()
    assert len({text.id for text in texts}) == len({text.text for text in texts}) == len(texts)
    hashes = []
    for text in texts:
        words = text.text.lower().split()
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([" ".join(words[i : i + 3]).encode() for i in range(len(words) - 2)])
        hashes.append(sketch.hashvalues)
    matrix = np.array(hashes)
    for i in range(len(matrix) - 1):
        similarity = (matrix[i + 1 :] == matrix[i]).mean(axis=1)
        assert similarity.max() < 0.5, (texts[i].id, texts[i + 1 + int(similarity.argmax())].id)


def test_spans_lie_in_their_text_and_examples_are_not_in_the_set() -> None:
    texts = load_labelled("transcripts")
    for text in texts:
        for span in text.spans or ():
            assert 0 <= span.start < span.end <= len(text.text)
            assert text.text[span.start : span.end].strip() == text.text[span.start : span.end]
    everything = "\n".join(text.text for text in load_labelled())
    assert not any(example in everything for pattern in load_taxonomy().patterns for example in pattern.examples)


def test_two_passes_are_kept_and_the_card_reports_their_agreement() -> None:
    passes, texts = load_passes(), load_labelled()
    assert {both.id for both in passes} == {text.id for text in texts}
    card = (LABELLED / "CARD.md").read_text(encoding="utf-8")
    assert "synthetic" in card and "not independent" in card
    for name in IDS:
        agreement = kappa([name in both.pass_a for both in passes], [name in both.pass_b for both in passes])
        assert f"| {name} | {agreement:.2f} |" in card
