"""Texts as windows of neighbouring sentences: what the local labeller learns from and what it looks at.

A pattern takes a sentence or three, a transcript has dozens. Each window is judged by itself; a text has a pattern as strongly
as its strongest window has it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msm_bench.scorers.patterns.labelled_set import LabelledText
from msm_bench.scorers.patterns.text import sentences

SIZE = 3
"""Sentences in a window; windows start at every sentence."""
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


def cut(texts: Sequence[str]) -> Batch:
    """Cuts texts into sentences and windows. A text without a sentence counts as one empty sentence."""
    from scipy.sparse import csr_matrix

    spans = [sentences(text) or [(0, 0)] for text in texts]
    pieces = [text[start:end] for text, parts in zip(texts, spans, strict=True) for start, end in parts]
    indices: list[int] = []
    indptr, first, offset = [0], [0], 0
    for parts in spans:
        n = len(parts)
        for start in range(max(1, n - SIZE + 1)):
            indices.extend(range(offset + start, offset + min(start + SIZE, n)))
            indptr.append(len(indices))
        offset += n
        first.append(len(indptr) - 1)
    matrix = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(indptr) - 1, len(pieces)))
    return Batch(spans, pieces, matrix, np.array(first))


def units(texts: Sequence[LabelledText], ids: Sequence[str]) -> tuple[list[str], NDArray[np.bool_], NDArray[np.intp]]:
    """What the classifiers are fitted to.

    Returns:
        The units' texts, their labels (units x patterns), and the number of the text that each comes from. A text without
        spans is one unit; one with spans is cut into windows, each with the labels whose span it holds the middle of.
    """
    words: list[str] = []
    labels: list[list[bool]] = []
    owners: list[int] = []
    for number, item in enumerate(texts):
        if item.spans is None:
            words.append(item.text)
            labels.append([name in item.labels for name in ids])
            owners.append(number)
            continue
        parts = sentences(item.text)
        for start in range(max(1, len(parts) - SIZE + 1)):
            low, high = parts[start][0], parts[min(start + SIZE, len(parts)) - 1][1]
            held = {span.pattern for span in item.spans if low <= (span.start + span.end) // 2 < high}
            words.append(item.text[low:high])
            labels.append([name in held for name in ids])
            owners.append(number)
    return words, np.array(labels, dtype=bool).reshape(len(words), len(ids)), np.array(owners, dtype=np.intp)
