"""What the local labeller sees of a sentence: words, pairs of words, and where a clause begins and ends.

A clause's borders stand in the pairs alone (`. i`, `, not`): they tell who a clause is about and what is mentioned in
quotation marks. Kinds of punctuation are not told apart, since they are an author's habit and not a reason.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOKEN = re.compile(r"""\w[\w']*|[.!?…]+|[,;:()–—]|["“”]""")
_MARKS = {**dict.fromkeys(".!?…", "."), **dict.fromkeys(",;:()–—", ","), **dict.fromkeys('"“”', '"')}
Floats = NDArray[np.float64]


def features(sentence: str) -> list[str]:
    """Words and pairs of a sentence, in lower case. Every sentence begins after a full stop."""
    tokens = ["."]
    tokens += [_MARKS.get(token[0], token) for token in _TOKEN.findall(sentence.lower().replace("’", "'"))]
    pairs = [f"{a} {b}" for a, b in pairwise(tokens)]
    return [token for token in tokens if token not in ('"', ",", ".")] + pairs


class Vocabulary:
    """Features as columns, each with its inverse document frequency.

    Args:
        names: The features, in the order of the columns.
        idf: Weight of each.
    """

    def __init__(self, names: Sequence[str], idf: Floats) -> None:
        self.names, self.idf = tuple(names), np.asarray(idf, dtype=float)
        self._columns = {name: column for column, name in enumerate(self.names)}

    @classmethod
    def learn(cls, pieces: Sequence[str], members: Any, min_df: int) -> "Vocabulary":
        """The features of sentences that stand in at least `min_df` units (`members`: units x sentences)."""
        listed = [features(piece) for piece in pieces]
        every = sorted({name for one in listed for name in one})
        found = cls(every, np.ones(len(every)))
        units = members @ found._count(listed)
        frequency = np.bincount(units.indices, minlength=len(every))
        kept = np.flatnonzero(frequency >= min_df)
        # As scikit-learn smooths it: as if one more unit held everything.
        idf = np.log((1 + members.shape[0]) / (1 + frequency[kept])) + 1
        return cls([every[column] for column in kept], idf)

    def count(self, pieces: Iterable[str]) -> Any:
        """Sparse counts, sentences x features."""
        return self._count(features(piece) for piece in pieces)

    def weigh(self, counts: Any) -> Any:
        """Sublinear term frequency times inverse document frequency, each row of length 1."""
        from scipy.sparse import diags

        weighed = counts.tocsr(copy=True)
        weighed.data = (1 + np.log(weighed.data)) * self.idf[weighed.indices]
        lengths = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
        return diags(1 / np.where(lengths == 0, 1, lengths)) @ weighed

    def _count(self, listed: Iterable[list[str]]) -> Any:
        from scipy.sparse import csr_matrix

        columns = self._columns
        indices: list[int] = []
        indptr = [0]
        for one in listed:
            indices += [columns[name] for name in one if name in columns]
            indptr.append(len(indices))
        counts = csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(indptr) - 1, len(columns)))
        counts.sum_duplicates()
        return counts
