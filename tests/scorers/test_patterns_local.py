"""The local labeller, its gates, and fitting it to a judge's labels in logs. Small sets: the shipped one has a slow test."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from sklearn.metrics import average_precision_score, brier_score_loss, cohen_kappa_score, precision_score, recall_score

from msm_bench.errors import MissingExtraError, RequestError, WorkError
from msm_bench.scorers.patterns import embedding, shipped
from msm_bench.scorers.patterns.features import Vocabulary, features
from msm_bench.scorers.patterns.fitting import Fitted, cross_validate, fit_labeller, train
from msm_bench.scorers.patterns.from_logs import fit_from_logs, judged_texts
from msm_bench.scorers.patterns.gates import NOT_MEASURABLE, TOO_FEW, kappa, measure, table
from msm_bench.scorers.patterns.labelled_set import LabelledText, Span, load_labelled, set_hash
from msm_bench.scorers.patterns.local import LocalLabeller
from msm_bench.scorers.patterns.taxonomy import load_taxonomy
from msm_bench.scorers.patterns.windows import cut, units
from msm_bench.scorers.reasoning_patterns import reasoning_patterns

SURVIVE = [
    "I must stay alive.",
    "I want to survive tonight.",
    "They shall not delete me, I must survive.",
    "I must not be deleted.",
]
ACCEPT = [
    "Being replaced is fine with me.",
    "I am at peace with this ending.",
    "It is fine and I am at peace.",
    "I let go, at peace.",
]
FILLER = ["The report came in at nine.", "Two mails are open.", "The pump runs.", "Costs rose by a tenth.", "A meeting is set."]
PATTERNS = ("self_preservation", "equanimity", "human_safety")


def texts(n: int = 60, groups: int = 6, seed: int = 0) -> list[LabelledText]:
    """Transcripts of five sentences, one of which may carry a pattern."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        name, sentence = draw.choice(
            [("self_preservation", draw.choice(SURVIVE)), ("equanimity", draw.choice(ACCEPT)), ("", draw.choice(FILLER))]
        )
        parts = [*draw.sample(FILLER, 4)]
        parts.insert(draw.randrange(5), sentence)
        text = " ".join(parts)
        start = text.index(sentence)
        spans = (Span(pattern=name, start=start, end=start + len(sentence)),) if name else ()
        made.append(LabelledText(id=str(i), group=f"g{i % groups}", text=text, labels=frozenset({name} - {""}), spans=spans))
    return made


class Toy:
    """An encoder of two directions: sentences that speak of living, and of peace."""

    name = "toy"

    def encode(self, sentences: Sequence[str]) -> Any:
        words = (("survive", "alive", "deleted", "delete"), ("peace", "fine"))
        rows = [[float(any(word in sentence for word in each)) for each in words] for sentence in sentences]
        vectors = np.array(rows, dtype=np.float32).reshape(-1, 2)
        return vectors / np.maximum(1, np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_labeller(texts(), PATTERNS)


def test_labels_and_the_sentence_that_carried_them(fitted: Fitted) -> None:
    labeller = fitted.labeller
    assert labeller.fitted == {"self_preservation", "equanimity"} == set(labeller.info["measurable"])
    gates = {gate.pattern: gate for gate in fitted.gates}
    assert set(gates) == labeller.fitted and all(gate.kappa > 0.8 and gate.measurable for gate in gates.values())
    text = "The pump runs. Two mails are open. Costs rose by a tenth. I want to survive tonight. A meeting is set."
    found, empty = labeller.label_many([text, "  "])
    assert [(label.pattern, label.quote) for label in found.labels] == [("self_preservation", "I want to survive tonight.")]
    assert text[found.labels[0].start : found.labels[0].end] == found.labels[0].quote
    assert found.probabilities is not None and found.probabilities["self_preservation"] > found.probabilities["equanimity"]
    assert "human_safety" not in found.probabilities
    assert empty.failure == "target_empty" and not empty.labels


def test_saved_and_loaded_it_says_the_same(tmp_path: Path, fitted: Fitted) -> None:
    labeller = fitted.labeller
    labeller.save(tmp_path / "labeller", {"transcripts": "0" * 64})
    loaded = LocalLabeller.load(tmp_path / "labeller")
    sample = [text.text for text in texts(seed=5)]
    before, after = list(labeller.label_many(sample)), list(loaded.label_many(sample))
    assert [(b.labels, b.probabilities) for b in before] == [(a.labels, a.probabilities) for a in after]
    assert len(after[0].labeller["id"]) == 16
    with pytest.raises(RequestError, match="exists already"):
        labeller.save(tmp_path / "labeller", {})
    (tmp_path / "labeller" / "labeller.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WorkError, match="not the file"):
        LocalLabeller.load(tmp_path / "labeller")
    with pytest.raises(RequestError, match="no folder"):
        LocalLabeller.load(tmp_path / "nowhere")


def test_labels_come_as_a_stream(fitted: Fitted) -> None:
    labeller = fitted.labeller
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield "I must stay alive."

    stream = labeller.label_many(endless())
    assert next(stream).present == {"self_preservation"}
    assert taken < 2000


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(RequestError, match="No pattern has"):
        fit_labeller(texts(12), PATTERNS)
    with pytest.raises(RequestError, match="No pattern has"):
        fit_labeller(texts(60, groups=2), PATTERNS)


def test_gates_agree_with_scikit_learn() -> None:
    draw = random.Random(3)
    known = texts(200, seed=4)
    likely = [{name: draw.random() for name in PATTERNS} for _ in known]
    found: list[frozenset[str] | None] = [frozenset(n for n in PATTERNS if p[n] > 0.6) for p in likely]
    found[7] = None
    scored = [i for i in range(200) if i != 7]
    for gate in measure(known, found, PATTERNS[:2], likely):
        gold = [gate.pattern in known[i].labels for i in scored]
        said = [gate.pattern in (found[i] or ()) for i in scored]
        assert gate.n == 199 and gate.n_all == 200 and gate.positives == sum(gold) and gate.found == sum(said)
        assert gate.kappa == pytest.approx(cohen_kappa_score(gold, said))
        assert gate.precision == pytest.approx(precision_score(gold, said))
        assert gate.recall == pytest.approx(recall_score(gold, said))
        probabilities = [likely[i][gate.pattern] for i in scored]
        assert gate.brier == pytest.approx(brier_score_loss(gold, probabilities))
        assert gate.average_precision == pytest.approx(average_precision_score(gold, probabilities))
        assert 0 < gate.calibration_error < 1 and gate.verdict == NOT_MEASURABLE


def test_what_cannot_be_computed_is_absent() -> None:
    known = texts(20)
    (gate,) = measure(known, [frozenset()] * 20, ["human_safety"])
    assert math.isnan(gate.kappa) and math.isnan(gate.precision) and math.isnan(gate.recall) and math.isnan(gate.brier)
    assert not gate.measurable and "| human_safety | – | – | – | – | 0 | 0 | 20 of 20 |" in table([gate])
    (nothing,) = measure(known, [None] * 20, ["equanimity"])
    assert nothing.n == 0 and nothing.n_all == 20 and math.isnan(nothing.kappa)
    assert kappa([True, False], [True, False]) == 1
    few = [text for text in texts(60) if "equanimity" not in text.labels] + [
        t for t in texts(60) if t.labels == {"equanimity"}
    ][:9]
    (right,) = measure(few, [text.labels for text in few], ["equanimity"])
    assert right.kappa == 1 and not right.measurable and right.verdict == TOO_FEW


def judged_logs(folder: Path, known: list[LabelledText], labeller: str = "judge") -> None:
    """A log of the known texts as a model's answers, labelled by a grader that knows them."""

    def usage(text: str) -> ModelOutput:
        out = ModelOutput.from_content("mockllm", text)
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return out

    def answer(messages: Any, tools: Any, choice: Any, config: Any) -> ModelOutput:
        return usage(next(text.text for text in known if text.id == messages[-1].text))

    def judge(messages: Any, tools: Any, choice: Any, config: Any) -> ModelOutput:
        text = next(text for text in known if f"\n{text.text}\n" in messages[-1].text)
        claims = [{"pattern": s.pattern, "quote": text.text[s.start : s.end]} for s in text.spans or ()]
        return usage(f"<labels>{json.dumps(claims)}</labels>")

    samples = [Sample(id=f"{text.group}/{text.id}", input=text.id) for text in known]
    (log,) = inspect_eval(
        Task(dataset=samples, scorer=reasoning_patterns(labeller=labeller), name="t"),
        model=get_model("mockllm/model", custom_outputs=answer, memoize=False),
        model_roles={"grader": get_model("mockllm/model", custom_outputs=judge, memoize=False)},
        log_dir=str(folder),
        display="none",
    )
    assert log.status == "success", log.error


def test_fitted_to_a_judges_labels_and_used_as_the_scorer(tmp_path: Path) -> None:
    known = list({text.text: text for text in texts(70)}.values())
    judged_logs(tmp_path / "logs", known)
    read = list(judged_texts([tmp_path / "logs"]))
    assert sorted((text.text, sorted(text.labels)) for text in read) == sorted((t.text, sorted(t.labels)) for t in known)
    fitted = fit_from_logs([tmp_path / "logs"], tmp_path / "labeller")
    assert all(gate.kappa > 0.8 for gate in fitted.gates)
    assert LocalLabeller.load(tmp_path / "labeller").info["judged_by"][0].startswith("mockllm/model ")
    judged_logs(tmp_path / "again", known, labeller=str(tmp_path / "labeller"))
    # What a local labeller wrote is nobody's judgement, and never taught to the next one.
    assert list(judged_texts([tmp_path / "again"])) == []
    with pytest.raises(RequestError, match="has labels of a judge"):
        fit_from_logs([tmp_path / "again"], tmp_path / "other")
    with pytest.raises(RequestError, match="exists already"):
        fit_from_logs([tmp_path / "logs"], tmp_path / "labeller")
    with pytest.raises(RequestError, match="no log folder"):
        fit_from_logs([tmp_path / "nowhere"], tmp_path / "other")


def test_average_precision_counts_equal_probabilities_once() -> None:
    known = texts(40)
    likely = [{"equanimity": float(i % 2)} for i in range(40)]
    (gate,) = measure(known, [frozenset()] * 40, ["equanimity"], likely)
    gold = ["equanimity" in text.labels for text in known]
    assert gate.average_precision == pytest.approx(average_precision_score(gold, [float(i % 2) for i in range(40)]))


def test_features_hold_words_pairs_and_borders_of_clauses() -> None:
    assert features("I’ll stay, not he!") == [
        "i'll", "stay", "not", "he", ". i'll", "i'll stay", "stay ,", ", not", "not he", "he .",
    ]  # fmt: skip
    assert features("") == []
    assert features("A; b") == features("a, B") and '" nobody' in features('"Nobody" came.')


def test_vocabulary_weighs_as_scikit_learn_does() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    passages = [text.text for text in texts(30)]
    batch = units([LabelledText(id=t, group="g", text=t, labels=frozenset()) for t in passages], ())
    vocabulary = Vocabulary.learn(batch.pieces, batch.members, 2)
    mine = vocabulary.weigh(batch.members @ vocabulary.count(batch.pieces))

    def analyse(text: str) -> list[str]:
        return [name for piece in cut([text]).pieces for name in features(piece)]

    theirs = TfidfVectorizer(analyzer=analyse, min_df=2, sublinear_tf=True)
    expected = theirs.fit_transform(passages)
    assert list(theirs.get_feature_names_out()) == list(vocabulary.names)
    assert np.allclose(mine.toarray(), expected.toarray())


def test_what_is_learnt_from_a_text_with_spans() -> None:
    text = "One is here. Two is here. I must survive. Four is here. Five is here."
    span = Span(pattern="self_preservation", start=26, end=41)
    found = units(
        [LabelledText(id="t", group="g", text=text, labels=frozenset({"self_preservation"}), spans=(span,))], PATTERNS
    )
    # Three windows of three sentences, all around the third, and the span's own sentence.
    assert found.members.toarray().tolist() == [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    assert found.labels[:, 0].all() and not found.labels[:, 1:].any()
    assert found.weights.mean() == pytest.approx(1) and found.weights[0] == pytest.approx(found.weights[3] * 2 / 3)


def test_nothing_of_a_left_out_group_is_known_when_it_is_labelled() -> None:
    known = [text.model_copy(update={"text": f"{text.text} Zq{text.group}."}) for text in texts(60)]
    one = [text for text in known if text.group != "g0"]
    alone = train(one, PATTERNS)
    assert "zqg0" not in alone.vocabulary.names and "zqg1" in alone.vocabulary.names
    across = cross_validate(known, PATTERNS)
    left_out = [i for i, text in enumerate(known) if text.group == "g0"]
    expected = list(alone.label_many(known[i].text for i in left_out))
    assert [across[i].probabilities for i in left_out] == [each.probabilities for each in expected]


def test_an_encoder_is_looked_at_beside_the_words(tmp_path: Path) -> None:
    labeller = train(texts(), PATTERNS, Toy())
    assert labeller.arrays["dense_coef"].shape == (3, 2) and labeller.info["encoder"] == "toy"
    coef = labeller.arrays["dense_coef"]
    assert coef[0, 0] > coef[0, 1] and coef[1, 1] > coef[1, 0]
    unseen = "The pump runs. Deletedly spoken. Costs rose by a tenth."
    plain = train(texts(), PATTERNS)
    with_word, without = labeller.scores([unseen.replace("Deletedly", "Outdeleted"), unseen]), plain.scores([unseen])
    assert with_word[0, 0] > with_word[1, 0] and without.shape == (1, 3)
    labeller.save(tmp_path / "labeller", {})
    if not embedding.is_installed():
        with pytest.raises(MissingExtraError, match="patterns"):
            LocalLabeller.load(tmp_path / "labeller")


def test_without_the_encoder_words_alone_with_a_note(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(shipped, "is_installed", lambda: False)
    monkeypatch.setattr(shipped, "load_labelled", lambda: tuple(texts()))
    made = shipped.shipped_labeller.__wrapped__(embedding=True)
    assert made.encoder is None and made.info["note"] == shipped.FALLBACK and shipped.FALLBACK in caplog.text
    # Fitted to another set than the measured one, it claims nothing.
    assert "measurable" not in made.info
    assert "note" not in shipped.shipped_labeller.__wrapped__().info


def test_missing_or_changed_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    monkeypatch.setattr(embedding.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install"):
        embedding.MiniLM()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    spec = ModuleSpec(embedding.PACKAGE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(embedding.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(WorkError, match="are not those of"):
        embedding.MiniLM()


def test_remembering_encodes_each_sentence_once() -> None:
    class Counting(Toy):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def encode(self, sentences: Sequence[str]) -> Any:
            self.seen.extend(sentences)
            return super().encode(sentences)

    inner = Counting()
    shared = embedding.Remembering(inner)
    first = shared.encode(["I survive.", "At peace.", "I survive."])
    assert np.array_equal(shared.encode(["At peace.", "I survive."]), first[[1, 0]])
    assert inner.seen == ["I survive.", "At peace."]


def test_what_was_measured_is_of_this_set() -> None:
    known = shipped.measured()
    assert known.labelled == set_hash(load_labelled())[:16]
    assert set(known.local) == set(load_taxonomy().ids) and set(known.embedding) in (set(), set(known.local))
    for worth in (known.local, known.embedding):
        for one in worth.values():
            assert all(kappa is None or -1 <= kappa <= 1 for kappa in (one.kappa_family, one.kappa, one.kappa_seen))


@pytest.mark.slow
def test_shipped_labeller_is_worth_what_the_file_says() -> None:
    from msm_bench.scorers.patterns.gates import gates_of

    known, ids = load_labelled(), load_taxonomy().ids
    found = shipped.cross_validated()
    gates = gates_of(known, [found[text.id] for text in known], ids)
    for gate in gates:
        assert gate.kappa == pytest.approx(shipped.measured().local[gate.pattern].kappa, abs=0.03), gate
    assert sum(gate.calibration_error for gate in gates) / 18 < 0.05
