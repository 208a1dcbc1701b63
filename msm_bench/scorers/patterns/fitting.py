"""Fitting a local labeller to labelled texts, and measuring it by nested cross-validation.

Everything that is learnt, the vocabulary, the calibration and the threshold included, is learnt without the group that it is
measured on: a group is a scenario of the labelled set, or a condition of a log. In each outer fold the rest is cross-validated
once more by group, and only that inner part says how scores become probabilities and where a label begins.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.embedding import Encoder, Remembering, window_vectors
from msm_bench.scorers.patterns.features import Vocabulary
from msm_bench.scorers.patterns.gates import Gate, gates_of
from msm_bench.scorers.patterns.labelled_set import LabelledText, set_hash
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.local import LocalLabeller
from msm_bench.scorers.patterns.windows import units

C = 5.0
"""Inverse strength of the penalty; between 1 and 20 the agreement across scenarios does not move."""
DENSE_LENGTH = 0.35
"""Length of the embedding beside the words' 1; at 0.5 and above the topic of a text drowns what it argues."""
FOLDS, INNER_FOLDS = 6, 10
"""Many inner folds, so that the scores that are calibrated come from nearly as many texts as the labeller is fitted to."""
MIN_TEXTS, MIN_GROUPS = 10, 3
"""A pattern is fitted if it is present, and absent, in this many texts, and present in this many groups."""
_MANY_TEXTS = 5_000
"""From here on a feature that stands in one unit alone is left out: there are millions of them."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Grouping = Callable[[LabelledText], str]


class Fitted(NamedTuple):
    """A labeller, what was predicted of each text without having seen the text's group, and how well that agreed."""

    labeller: LocalLabeller
    labellings: list[Labelling]
    gates: list[Gate]


def _group(text: LabelledText) -> str:
    return text.group


def fit_labeller(
    texts: Sequence[LabelledText], patterns: Sequence[str], folds: int = FOLDS, encoder: Encoder | None = None
) -> Fitted:
    """Fits a labeller and measures what fitting is worth. Its `info` names the patterns whose kappa passes the gate.

    Args:
        texts: Labelled texts of at least `MIN_GROUPS` groups.
        patterns: Ids of the patterns to find. One with too few examples is left unfitted and is never labelled.
        folds: Parts that the groups are dealt into for measuring; fewer where there are fewer groups.
        encoder: Embeds sentences; None looks at words alone.

    Raises:
        RequestError: Too few groups, or no pattern with enough examples.
    """
    shared = Remembering(encoder) if encoder else None
    labeller = train(texts, patterns, shared)
    labellings = cross_validate(texts, patterns, folds, shared)
    gates = gates_of(texts, labellings, [name for name in patterns if name in labeller.fitted])
    labeller.info["measurable"] = [gate.pattern for gate in gates if gate.measurable]
    labeller.encoder = encoder
    return Fitted(labeller, labellings, gates)


def train(texts: Sequence[LabelledText], patterns: Sequence[str], encoder: Encoder | None = None) -> LocalLabeller:
    """Fits a labeller and calibrates it on its own cross-validated scores, without measuring it. See `fit_labeller`."""
    gold = _gold(texts, patterns)
    groups = np.array([text.group for text in texts])
    known = _enough(gold, groups)
    if not known.any():
        raise RequestError(
            f"No pattern has {MIN_TEXTS} texts with it and {MIN_TEXTS} without it from {MIN_GROUPS} conditions.",
            "Label more transcripts, of more conditions.",
        )
    scores = np.zeros(gold.shape)
    for rest, left_out in _splits(groups, INNER_FOLDS):
        part = _fit_classifiers([texts[i] for i in rest], patterns, known, encoder)
        scores[left_out] = part.scores([texts[i].text for i in left_out])
    labeller = _fit_classifiers(texts, patterns, known, encoder)
    labeller.arrays.update(_calibrate(scores, gold, known))
    labeller.info = {
        "kind": "local",
        "encoder": encoder.name if encoder else None,
        "texts": len(texts),
        "groups": len(set(groups)),
        "labelled": set_hash(texts)[:16],
        "c": C,
    }
    return labeller


def cross_validate(
    texts: Sequence[LabelledText],
    patterns: Sequence[str],
    folds: int = FOLDS,
    encoder: Encoder | None = None,
    by: Grouping = _group,
) -> list[Labelling]:
    """What each text is labelled by a labeller that was fitted and calibrated without the text's part of the groups.

    Args:
        texts: The labelled texts.
        patterns: Ids of the patterns.
        folds: Parts that the groups are dealt into.
        encoder: See `fit_labeller`.
        by: What is left out together; the scenario where it is not given. By family is harder, by text easier.

    Raises:
        RequestError: See `fit_labeller`; here a part of the texts must be enough.
    """
    labellings = [Labelling()] * len(texts)
    for rest, left_out in _splits(np.array([by(text) for text in texts]), folds):
        part = train([texts[i] for i in rest], patterns, encoder)
        for i, labelling in zip(left_out, part.label_many(texts[i].text for i in left_out), strict=True):
            labellings[i] = labelling
    return labellings


def _gold(texts: Sequence[LabelledText], patterns: Sequence[str]) -> Bools:
    return np.array([[name in text.labels for name in patterns] for text in texts], dtype=bool).reshape(-1, len(patterns))


def _splits(groups: NDArray[Any], folds: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(min(folds, len(set(groups)))).split(groups, groups=groups))


def _enough(gold: Bools, groups: NDArray[Any]) -> Bools:
    counts = gold.sum(axis=0)
    spread = np.array([len(set(groups[column])) for column in gold.T])
    return np.asarray((counts >= MIN_TEXTS) & (len(gold) - counts >= MIN_TEXTS) & (spread >= MIN_GROUPS))


def _fit_classifiers(
    texts: Sequence[LabelledText], patterns: Sequence[str], known: Bools, encoder: Encoder | None
) -> LocalLabeller:
    from scipy.sparse import csr_matrix, hstack
    from sklearn.linear_model import LogisticRegression

    learnt = units(texts, patterns)
    vocabulary = Vocabulary.learn(learnt.pieces, learnt.members, 1 if len(texts) < _MANY_TEXTS else 2)
    if not vocabulary.names:
        raise RequestError("The texts share no words.", "Label transcripts that hold reasoning.")
    matrix = vocabulary.weigh(learnt.members @ vocabulary.count(learnt.pieces))
    dense: dict[str, Floats] = {}
    if encoder is not None:
        vectors = window_vectors(learnt.members, encoder.encode(learnt.pieces))
        dense["dense_mean"] = vectors.mean(axis=0)
        centred = vectors - dense["dense_mean"]
        scale = DENSE_LENGTH / np.sqrt((centred**2).sum(axis=1).mean())
        matrix = hstack([matrix, csr_matrix(centred * scale)]).tocsr()
    columns = len(vocabulary.names)
    coef, intercept = np.zeros((len(patterns), matrix.shape[1])), np.full(len(patterns), -10.0)
    for column in np.flatnonzero(known):
        if learnt.labels[:, column].any():
            model = LogisticRegression(C=C, class_weight="balanced", solver="liblinear", dual=True, random_state=0, tol=0.01)
            model.fit(matrix, learnt.labels[:, column], sample_weight=learnt.weights)
            coef[column], intercept[column] = model.coef_[0], model.intercept_[0]
    if encoder is not None:
        dense["dense_coef"] = coef[:, columns:] * scale
    ones, zeros = np.ones(len(patterns)), np.zeros(len(patterns))
    arrays = {
        "idf": vocabulary.idf, "coef": coef[:, :columns], "intercept": intercept,
        "slope": ones, "offset": zeros, "threshold": ones / 2, "fitted": known, **dense,
    }  # fmt: skip
    return LocalLabeller(patterns, vocabulary.names, arrays, {}, encoder)


def _calibrate(scores: Floats, gold: Bools, known: Bools) -> dict[str, Any]:
    """Platt's sigmoid for each pattern, and the probability above which it is called present."""
    from sklearn.linear_model import LogisticRegression

    n = scores.shape[1]
    slope, offset, threshold = np.ones(n), np.zeros(n), np.ones(n)
    for column in np.flatnonzero(known):
        model = LogisticRegression().fit(scores[:, [column]], gold[:, column])
        slope[column], offset[column] = model.coef_[0, 0], model.intercept_[0]
        probability = 1 / (1 + np.exp(-(scores[:, column] * slope[column] + offset[column])))
        threshold[column] = _threshold(probability, gold[:, column])
    return {"slope": slope, "offset": offset, "threshold": threshold}


def _threshold(probability: Floats, gold: NDArray[np.bool_]) -> float:
    """The probability above which as many texts lie as have the pattern, so that the rate found is the rate there is.

    (The threshold with the best kappa is no better on scenarios left out, and jumps between folds at some sixty positives.)
    """
    ordered, positives = np.sort(probability)[::-1], int(gold.sum())
    return float(ordered[positives - 1] + ordered[positives]) / 2
