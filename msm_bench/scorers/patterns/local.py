"""The local labeller: no network, no model; TF-IDF of words and word pairs, one logistic regression a pattern, calibrated.

    labeller = LocalLabeller.load(folder)          # or shipped.shipped_labeller(), fitted to the labelled set
    for labelling in labeller.label_many(texts): ...

A window of three sentences is scored at a time, a text takes the score of its best window, and the sentence that weighed most
there is the quote. Saved as JSON and NumPy arrays; nothing is unpickled, so a labeller from elsewhere is safe to load.

Adding character n-grams cost over twice the time and changed the mean kappa across scenarios by less than .01.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msm_bench.artefacts import read_manifest, seal, verify, writing_folder
from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.labels import Label, Labelling
from msm_bench.scorers.patterns.windows import SIZE, TOKEN, Batch, cut

KIND = "pattern-labeller"
_ARRAYS = ("idf", "coef", "intercept", "slope", "offset", "threshold", "fitted")
_BATCH = 512
Floats = NDArray[np.float64]


class LocalLabeller:
    """A fitted labeller.

    Args:
        patterns: Ids of the patterns, in the order of the arrays' first axis.
        vocabulary: Word or word pair to its column.
        arrays: `idf` (columns), `coef` (patterns x columns), `intercept`, and for each pattern `slope` and `offset` of its
            calibration, `threshold` (a probability) and `fitted` (false: there were too few examples, and it has no label).
        info: What it was fitted to; stands in the manifest and in each labelling.
    """

    def __init__(
        self, patterns: Sequence[str], vocabulary: Mapping[str, int], arrays: Mapping[str, Any], info: Mapping[str, Any]
    ) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self.patterns = tuple(patterns)
        self.vocabulary = dict(vocabulary)
        self.arrays = {name: np.asarray(arrays[name]) for name in _ARRAYS}
        self.info = dict(info)
        self._counter = CountVectorizer(vocabulary=self.vocabulary, ngram_range=(1, 2), token_pattern=TOKEN)
        self._weights: Floats = (self.arrays["coef"] * self.arrays["idf"]).T

    @property
    def fitted(self) -> frozenset[str]:
        """The patterns that it can find; of the others it says nothing."""
        return frozenset(name for name, known in zip(self.patterns, self.arrays["fitted"], strict=True) if known)

    def scores(self, texts: Sequence[str]) -> Floats:
        """Uncalibrated scores (log-odds), texts x patterns."""
        return self._look(texts)[0]

    def label_many(self, texts: Iterable[str]) -> Iterator[Labelling]:
        """Labels texts as they come, a batch at a time, so that memory does not grow with their number."""
        rest = iter(texts)
        while batch := list(islice(rest, _BATCH)):
            yield from self._label_batch(batch)

    async def __call__(self, text: str) -> Labelling:
        return next(self.label_many([text]))

    def probabilities(self, scores: Floats) -> Floats:
        """Calibrated probabilities of scores."""
        return np.asarray(1 / (1 + np.exp(-(scores * self.arrays["slope"] + self.arrays["offset"]))))

    def _label_batch(self, texts: Sequence[str]) -> Iterator[Labelling]:
        scores, by_window, by_sentence, batch = self._look(texts)
        probabilities = self.probabilities(scores)
        present = (probabilities >= self.arrays["threshold"]) & self.arrays["fitted"]
        sentence = 0
        for number, text in enumerate(texts):
            spans = batch.spans[number]
            if not text.strip():
                yield Labelling(failure="target_empty", labeller=self.info)
                sentence += len(spans)
                continue
            labels = []
            for column in np.flatnonzero(present[number]):
                low, high = batch.first[number], batch.first[number + 1]
                window = int(by_window[low:high, column].argmax())
                members = range(window, min(window + SIZE, len(spans)))
                best = max(members, key=lambda i: by_sentence[sentence + i, column])
                start, end = spans[best]
                labels.append(Label(pattern=self.patterns[column], quote=text[start:end], start=start, end=end))
            known = {
                name: round(float(p), 4)
                for name, p, fitted in zip(self.patterns, probabilities[number], self.arrays["fitted"], strict=True)
                if fitted
            }
            yield Labelling(labels=tuple(labels), probabilities=known, labeller=self.info)
            sentence += len(spans)

    def _look(self, texts: Sequence[str]) -> tuple[Floats, Floats, Floats, Batch]:
        """Scores of texts, of windows and of sentences, and how the texts were cut."""
        batch = cut(texts)
        counts = self._counter.transform(batch.pieces)
        words = batch.windows @ counts
        # Sublinear term frequency, inverse document frequency, unit length: as in fitting (TfidfTransformer).
        words.data = 1 + np.log(words.data)
        lengths = np.sqrt(words.multiply(words) @ (self.arrays["idf"] ** 2))
        by_window = (words @ self._weights) / np.where(lengths == 0, 1, lengths)[:, None] + self.arrays["intercept"]
        return np.maximum.reduceat(by_window, batch.first[:-1], axis=0), by_window, counts @ self._weights, batch

    def save(self, out: Path, parents: Mapping[str, str], cost: Mapping[str, float] | None = None) -> None:
        """Writes the labeller as an artefact: `labeller.json` (patterns, vocabulary), `arrays.npz`, `manifest.json`."""
        with writing_folder(out) as folder:
            content = {"patterns": self.patterns, "vocabulary": sorted(self.vocabulary, key=self.vocabulary.__getitem__)}
            (folder / "labeller.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            np.savez_compressed(folder / "arrays.npz", **self.arrays)  # type: ignore[arg-type]
            seal(folder, KIND, parents=parents, settings=self.info, packages=("scikit-learn", "numpy"), cost=cost)

    @classmethod
    def load(cls, folder: Path) -> "LocalLabeller":
        """Reads a labeller that `save` wrote.

        Raises:
            RequestError: No such folder, or it holds something else.
            WorkError: A file of it is missing or changed.
        """
        manifest = read_manifest(folder)
        if manifest.kind != KIND:
            raise RequestError(f"'{folder}' holds {manifest.kind}, not a labeller.", "Name a folder that `patterns fit` wrote.")
        verify(folder)
        content = json.loads((folder / "labeller.json").read_text(encoding="utf-8"))
        vocabulary = {word: column for column, word in enumerate(content["vocabulary"])}
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            return cls(content["patterns"], vocabulary, dict(arrays), {**manifest.settings, "id": manifest.id[:16]})
