"""Texts as windows of neighbouring sentences: what the local labeller learns from and what it looks at.

A pattern takes a sentence or four, a transcript has dozens. Each window is judged by itself; a text has a pattern as strongly
as its strongest window has it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msm_bench.scorers.patterns.labelled_set import LabelledText
from msm_bench.scorers.patterns.text import sentences

SIZE = 4
"""Sentences in a window; windows start at every sentence. Of two to six, four agreed best on scenarios left out."""
LEARNT_SIZE = 3
"""Sentences in the windows of a transcript that is learnt from: fewer neighbours that have nothing to do with the label."""
SPAN_WEIGHT = 0.5
"""What the bare sentences of a label weigh in learning, beside the windows around them (a whole text weighs 1)."""
TOKEN = r"(?u)\b\w[\w']*\b"
"""A word, one-letter words included: `I` is the most telling of all."""


class Batch(NamedTuple):
    """Texts cut into sentences and windows. Windows of a text are neighbours; `first[i]` is the first one of text i."""

    spans: list[list[tuple[int, int]]]
    """Offsets of the sentences of each text."""
    pieces: list[str]
    """All sentences, text after text."""
    windows: Any
    """Sparse matrix, windows x sentences, 1 where the sentence is in the window."""
    first: NDArray[np.intp]
    """Window number at which each text begins, and at the end the number of windows."""


class Units(NamedTuple):
    """What the classifiers are fitted to: pieces of texts with their labels."""

    pieces: list[str]
    """The sentences of all texts."""
    members: Any
    """Sparse matrix, units x sentences, 1 where the sentence is in the unit."""
    labels: NDArray[np.bool_]
    """Units x patterns."""
    weights: NDArray[np.float64]
    """What each unit counts, with a mean of 1: a long transcript is many windows, and each text counts once."""


def cut(texts: Sequence[str]) -> Batch:
    """Cuts texts into sentences and windows. A text without a sentence counts as one empty sentence."""
    spans, pieces = _sentences(texts)
    ranges: list[tuple[int, int]] = []
    first, offset = [0], 0
    for parts in spans:
        ranges += ((offset + low, offset + high) for low, high in _windows(len(parts), SIZE))
        offset += len(parts)
        first.append(len(ranges))
    return Batch(spans, pieces, _members(ranges, len(pieces)), np.array(first))


def units(texts: Sequence[LabelledText], ids: Sequence[str]) -> Units:
    """Cuts labelled texts into what the classifiers learn from.

    A text without spans is one unit. One with spans is cut into windows, each with the labels whose span it holds the middle
    of; besides, the sentences of every span are a unit with that one label.
    """
    spans, pieces = _sentences([item.text for item in texts])
    ranges: list[tuple[int, int]] = []
    labels: list[list[bool]] = []
    weights: list[float] = []
    offset = 0
    for item, parts in zip(texts, spans, strict=True):
        windows = [(0, len(parts))] if item.spans is None else _windows(len(parts), LEARNT_SIZE)
        for low, high in windows:
            start, end = parts[low][0], parts[high - 1][1]
            held = (
                item.labels
                if item.spans is None
                else {span.pattern for span in item.spans if start <= (span.start + span.end) // 2 < end}
            )
            ranges.append((offset + low, offset + high))
            labels.append([name in held for name in ids])
            weights.append(1 / len(windows))
        for span in item.spans or ():
            inside = [number for number, (start, end) in enumerate(parts) if start < span.end and span.start < end]
            if inside:
                ranges.append((offset + inside[0], offset + inside[-1] + 1))
                labels.append([name == span.pattern for name in ids])
                weights.append(SPAN_WEIGHT)
        offset += len(parts)
    weighed = np.array(weights)
    return Units(
        pieces,
        _members(ranges, len(pieces)),
        np.array(labels, dtype=bool).reshape(len(ranges), len(ids)),
        weighed * len(weighed) / weighed.sum(),
    )


def _sentences(texts: Sequence[str]) -> tuple[list[list[tuple[int, int]]], list[str]]:
    spans = [sentences(text) or [(0, 0)] for text in texts]
    return spans, [text[start:end] for text, parts in zip(texts, spans, strict=True) for start, end in parts]


def _windows(sentences_of_text: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, sentences_of_text)) for start in range(max(1, sentences_of_text - size + 1))]


def _members(ranges: Iterable[tuple[int, int]], pieces: int) -> Any:
    from scipy.sparse import csr_matrix

    indices: list[int] = []
    indptr = [0]
    for low, high in ranges:
        indices.extend(range(low, high))
        indptr.append(len(indices))
    return csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(indptr) - 1, pieces))
