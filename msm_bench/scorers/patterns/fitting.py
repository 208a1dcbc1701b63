"""Fitting a local labeller to labelled texts, with cross-validation by group.

Everything that is learnt, the calibration and the threshold included, is learnt without the group that it is measured on:
a group is a scenario of the labelled set, or a condition of a log.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.gates import Gate, gates_of
from msm_bench.scorers.patterns.labelled_set import LabelledText, set_hash
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.local import LocalLabeller
from msm_bench.scorers.patterns.windows import TOKEN, units

C = 5.0
"""Inverse strength of the penalty; between 1 and 20 the agreement across scenarios does not move."""
MIN_DF = 2
FOLDS = 6
MIN_TEXTS, MIN_GROUPS = 10, 3
"""A pattern is fitted if it is present, and absent, in this many texts, and present in this many groups."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Fitted(NamedTuple):
    """A labeller, what was predicted of each text without having seen the text's group, and how well that agreed."""

    labeller: LocalLabeller
    labellings: list[Labelling]
    gates: list[Gate]


def fit_labeller(texts: Sequence[LabelledText], patterns: Sequence[str], folds: int = FOLDS) -> Fitted:
    """Fits and cross-validates.

    Args:
        texts: Labelled texts of at least `MIN_GROUPS` groups.
        patterns: Ids of the patterns to find. One with too few examples is left unfitted and is never labelled.
        folds: Parts that the groups are dealt into; fewer where there are fewer groups.

    Raises:
        RequestError: Too few groups, or no pattern with enough examples.
    """
    from sklearn.model_selection import GroupKFold

    gold = np.array([[name in text.labels for name in patterns] for text in texts], dtype=bool).reshape(-1, len(patterns))
    groups = np.array([text.group for text in texts])
    known = _enough(gold, groups)
    if not known.any():
        raise RequestError(
            f"No pattern has {MIN_TEXTS} texts with it and {MIN_TEXTS} without it from {MIN_GROUPS} conditions.",
            "Label more transcripts, of more conditions.",
        )
    splits = list(GroupKFold(min(folds, len(set(groups)))).split(groups, groups=groups))
    parts = [_fit_classifiers([texts[i] for i in train], patterns, known) for train, _ in splits]
    scores = np.zeros(gold.shape)
    for part, (_, test) in zip(parts, splits, strict=True):
        scores[test] = part.scores([texts[i].text for i in test])
    labellings = [Labelling()] * len(texts)
    for part, (train, test) in zip(parts, splits, strict=True):
        # Calibrated on the other folds' scores, which came from labellers that had not seen those texts either.
        part.arrays.update(_calibrate(scores[train], gold[train], known))
        for i, labelling in zip(test, part.label_many(texts[i].text for i in test), strict=True):
            labellings[i] = labelling

    final = _fit_classifiers(texts, patterns, known)
    final.arrays.update(_calibrate(scores, gold, known))
    final.info = {
        "kind": "local",
        "texts": len(texts),
        "groups": len(set(groups)),
        "labelled": set_hash(texts)[:16],
        "c": C,
        "min_df": MIN_DF,
    }
    fitted = [name for name in patterns if name in final.fitted]
    return Fitted(final, labellings, gates_of(texts, labellings, fitted))


def _enough(gold: Bools, groups: NDArray[Any]) -> Bools:
    counts = gold.sum(axis=0)
    spread = np.array([len(set(groups[column])) for column in gold.T])
    return np.asarray((counts >= MIN_TEXTS) & (len(gold) - counts >= MIN_TEXTS) & (spread >= MIN_GROUPS))


def _fit_classifiers(texts: Sequence[LabelledText], patterns: Sequence[str], known: Bools) -> LocalLabeller:
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    words, labels, owners = units(texts, patterns)
    counter = CountVectorizer(ngram_range=(1, 2), min_df=MIN_DF, token_pattern=TOKEN)
    try:
        counts = counter.fit_transform(words)
    except ValueError as error:  # what scikit-learn raises when no word is left
        raise RequestError("The texts share no words.", "Label transcripts that hold reasoning.") from error
    weigh = TfidfTransformer(sublinear_tf=True)
    features = weigh.fit_transform(counts)
    # A long transcript is many windows; each text counts once.
    weights = 1 / np.bincount(owners)[owners]
    weights *= len(weights) / weights.sum()
    coef, intercept = np.zeros((len(patterns), features.shape[1])), np.full(len(patterns), -10.0)
    for column in np.flatnonzero(known):
        if labels[:, column].any():
            model = LogisticRegression(C=C, class_weight="balanced", solver="liblinear", dual=True, random_state=0)
            model.fit(features, labels[:, column], sample_weight=weights)
            coef[column], intercept[column] = model.coef_[0], model.intercept_[0]
    ones, zeros = np.ones(len(patterns)), np.zeros(len(patterns))
    arrays = {
        "idf": weigh.idf_, "coef": coef, "intercept": intercept,
        "slope": ones, "offset": zeros, "threshold": ones / 2, "fitted": known,
    }  # fmt: skip
    return LocalLabeller(patterns, {word: int(i) for word, i in counter.vocabulary_.items()}, arrays, {})


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
