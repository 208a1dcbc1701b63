"""The local labeller: no network; TF-IDF of words and word pairs, one logistic regression a pattern, calibrated.

    labeller = LocalLabeller.load(folder)          # or shipped.shipped_labeller(), fitted to the labelled set
    for labelling in labeller.label_many(texts): ...

A window of four sentences is scored at a time, a text takes the score of its best window, and the sentence that weighed most
there is the quote. With an encoder, the windows' embeddings are scored as well. Saved as JSON and NumPy arrays; nothing is
unpickled, so a labeller from elsewhere is safe to load.
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
from msm_bench.scorers.patterns.embedding import Encoder, MiniLM, window_vectors
from msm_bench.scorers.patterns.features import Vocabulary
from msm_bench.scorers.patterns.labels import Label, Labelling
from msm_bench.scorers.patterns.windows import SIZE, Batch, cut

KIND = "pattern-labeller"
_ARRAYS = ("idf", "coef", "intercept", "slope", "offset", "threshold", "fitted")
_DENSE = ("dense_mean", "dense_coef")
_BATCH = 512
Floats = NDArray[np.float64]


class LocalLabeller:
    """A fitted labeller.

    Args:
        patterns: Ids of the patterns, in the order of the arrays' first axis.
        vocabulary: Names of the features, in the order of the columns.
        arrays: `idf` (columns), `coef` (patterns x columns), `intercept`, and for each pattern `slope` and `offset` of its
            calibration, `threshold` (a probability) and `fitted` (false: there were too few examples, and it has no label).
            With an encoder also `dense_mean` (dimensions) and `dense_coef` (patterns x dimensions).
        info: What it was fitted to; stands in the manifest and in each labelling.
        encoder: What the dense arrays were fitted to.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        vocabulary: Sequence[str],
        arrays: Mapping[str, Any],
        info: Mapping[str, Any],
        encoder: Encoder | None = None,
    ) -> None:
        self.patterns = tuple(patterns)
        names = (*_ARRAYS, *_DENSE) if encoder else _ARRAYS
        self.arrays = {name: np.asarray(arrays[name]) for name in names}
        self.vocabulary = Vocabulary(vocabulary, self.arrays["idf"])
        self.info = dict(info)
        self.encoder = encoder
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
        columns = np.flatnonzero(self.arrays["fitted"])
        names = [self.patterns[column] for column in columns]
        rounded = probabilities[:, columns].round(4).tolist()
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
            known = dict(zip(names, rounded[number], strict=True))
            yield Labelling(labels=tuple(labels), probabilities=known, labeller=self.info)
            sentence += len(spans)

    def _look(self, texts: Sequence[str]) -> tuple[Floats, Floats, Floats, Batch]:
        """Scores of texts, of windows and of sentences, and how the texts were cut."""
        batch = cut(texts)
        counts = self.vocabulary.count(batch.pieces)
        words = batch.windows @ counts
        # Sublinear term frequency, inverse document frequency, unit length: as in fitting (`Vocabulary.weigh`).
        words.data = 1 + np.log(words.data)
        lengths = np.sqrt(words.multiply(words) @ (self.arrays["idf"] ** 2))
        by_window = (words @ self._weights) / np.where(lengths == 0, 1, lengths)[:, None] + self.arrays["intercept"]
        # Over the root of its length, or the longest sentence is always the quote.
        by_sentence = (counts @ self._weights) / np.sqrt(np.maximum(1, np.asarray(counts.sum(axis=1))))
        if self.encoder is not None:
            vectors = self.encoder.encode(batch.pieces)
            coef = self.arrays["dense_coef"].T
            by_window = by_window + (window_vectors(batch.windows, vectors) - self.arrays["dense_mean"]) @ coef
            by_sentence = by_sentence + vectors @ coef
        return np.maximum.reduceat(by_window, batch.first[:-1], axis=0), by_window, by_sentence, batch

    def save(self, out: Path, parents: Mapping[str, str], cost: Mapping[str, float] | None = None) -> None:
        """Writes the labeller as an artefact: `labeller.json` (patterns, vocabulary), `arrays.npz`, `manifest.json`."""
        with writing_folder(out) as folder:
            content = {"patterns": self.patterns, "vocabulary": self.vocabulary.names}
            (folder / "labeller.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            np.savez_compressed(folder / "arrays.npz", **self.arrays)  # type: ignore[arg-type]
            seal(folder, KIND, parents=parents, settings=self.info, packages=("scikit-learn", "numpy"), cost=cost)

    @classmethod
    def load(cls, folder: Path) -> "LocalLabeller":
        """Reads a labeller that `save` wrote.

        Raises:
            RequestError: No such folder, or it holds something else.
            MissingExtraError: It was fitted with an encoder that is not installed.
            WorkError: A file of it is missing or changed.
        """
        manifest = read_manifest(folder)
        if manifest.kind != KIND:
            raise RequestError(f"'{folder}' holds {manifest.kind}, not a labeller.", "Name a folder that `patterns fit` wrote.")
        verify(folder)
        content = json.loads((folder / "labeller.json").read_text(encoding="utf-8"))
        encoder = MiniLM() if manifest.settings.get("encoder") else None
        info = {**manifest.settings, "id": manifest.id[:16]}
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            return cls(content["patterns"], content["vocabulary"], dict(arrays), info, encoder)
