"""Finds rows that repeat an earlier one, to the letter or nearly.

Nearly: the sets of character 5-shingles of the two texts (case folded, punctuation and white space reduced to single spaces)
have a Jaccard similarity of at least `NEAR_DUPLICATE`, the measure and the threshold of the value probes. Candidates come
from MinHash with locality-sensitive hashing, and each is then compared exactly, so nothing is reported that is not similar.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msm_bench.artefacts import sha256_of_text
from msm_bench.corpus.checks.pieces import Piece
from msm_bench.corpus.checks.report import Problem

NEAR_DUPLICATE = 0.7
"""Jaccard similarity from which two rows count as near-duplicates; the same as for the value probes."""

_PERMUTATIONS = 128
_SHINGLE = 5
_RECALL = 0.99  # share of pairs just at the threshold that the index must find
_DOUBT = 0.16  # four standard errors of the similarity that 128 hashes estimate
_NOT_WORD = re.compile(r"\W+")


class DuplicateScan:
    """Remembers the rows it has seen and reports each that repeats one of them.

    Args:
        threshold: Jaccard similarity from which two rows are near-duplicates.
    """

    def __init__(self, threshold: float = NEAR_DUPLICATE) -> None:
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        rows_in_band = band_size(threshold)
        bands = (_PERMUTATIONS // rows_in_band, rows_in_band)
        self._index: Any = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, params=bands)
        self._exact: dict[str, Piece] = {}
        self._signatures = np.empty((0, _PERMUTATIONS), dtype=np.uint32)
        self._shingles: list[NDArray[np.uint32]] = []
        self._names: list[str] = []
        self._blank: Any = MinHash(num_perm=_PERMUTATIONS, seed=1)
        generator = np.random.default_rng(1)
        self._factors = generator.integers(0, 2**31, size=_PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
        self._offsets = generator.integers(0, 2**32, size=_PERMUTATIONS, dtype=np.uint32)

    def problems(self, pieces: Sequence[Piece], near: bool = True) -> Iterator[Problem]:
        """Reports a row if it repeats an earlier one, to the letter or (if `near`) nearly. Its id does not matter."""
        text = normalised(pieces)
        if not text.strip() or not pieces:
            return
        digest = sha256_of_text(text)
        first = self._exact.setdefault(digest, pieces[0])
        if first is not pieces[0]:
            yield pieces[0].problem("repeat", "stop", f"repeats row '{first.row}' word for word", found=pieces[0].text)
        elif near:
            yield from self._near(pieces, shingles(text))

    def _near(self, pieces: Sequence[Piece], own: NDArray[np.uint32]) -> Iterator[Problem]:
        sketch = self._blank.copy()
        sketch.hashvalues = self._signature(own)
        best, nearest = 0.0, -1
        for place in self._candidates(sketch):
            similarity = jaccard(own, self._shingles[place])
            if similarity > best:
                best, nearest = similarity, place
        if best >= self.threshold:
            # Not put into the index: a cluster of n alike rows then costs n comparisons, not n squared.
            reason = f"is nearly row '{self._names[nearest]}' (similarity {best:.2f})"
            yield pieces[0].problem("near-duplicate", "shout", reason, found=pieces[0].text)
            return
        self._index.insert(len(self._names), sketch)
        if len(self._names) == len(self._signatures):
            spare = np.empty((len(self._names) + 1024, _PERMUTATIONS), dtype=np.uint32)
            self._signatures = np.concatenate([self._signatures, spare])
        self._signatures[len(self._names)] = sketch.hashvalues
        self._names.append(pieces[0].row)
        self._shingles.append(own)

    def _candidates(self, sketch: Any) -> list[int]:
        """Earlier rows that may be similar enough, by the index and then by the share of equal hashes."""
        places = np.array(sorted(self._index.query(sketch)), dtype=np.intp)
        estimates = (self._signatures[places] == sketch.hashvalues).mean(axis=1)
        return [int(place) for place in places[estimates >= self.threshold - _DOUBT]]

    def _signature(self, own: NDArray[np.uint32]) -> NDArray[np.uint32]:
        # datasketch's scheme (an odd factor and an offset modulo 2^32), without its detour over Python's integers, and in
        # pieces that fit the processor's cache.
        lowest = np.full(_PERMUTATIONS, 2**32 - 1, dtype=np.uint32)
        for begin in range(0, len(own), 512):
            hashed = own[begin : begin + 512, None] * self._factors + self._offsets
            np.minimum(lowest, hashed.min(axis=0), out=lowest)
        return lowest


def band_size(threshold: float) -> int:
    """The most hashes a band may hold so that a pair at the threshold is found with probability .99."""
    return max(
        size
        for size in range(1, _PERMUTATIONS // 2 + 1)
        if size == 1 or 1 - (1 - threshold**size) ** (_PERMUTATIONS // size) >= _RECALL
    )


def normalised(pieces: Sequence[Piece]) -> str:
    """The text of a row for comparison: case folded, everything but letters and digits as one space."""
    return _NOT_WORD.sub(" ", " | ".join(piece.text for piece in pieces).casefold()).strip()


def shingles(text: str) -> NDArray[np.uint32]:
    """The character 5-shingles of a text as sorted 32-bit hashes, each once."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < _SHINGLE:
        codes = np.pad(codes, (0, _SHINGLE - len(codes)))
    count = len(codes) - _SHINGLE + 1
    value = np.zeros(count, dtype=np.uint64)
    for place in range(_SHINGLE):
        value = (value * np.uint64(0x100000001B3)) ^ codes[place : place + count]
    # Mixes the bits (the last steps of MurmurHash3), since neighbouring texts give neighbouring polynomials.
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    hashes = np.sort((value >> np.uint64(32)).astype(np.uint32))
    first = np.append(True, hashes[1:] != hashes[:-1])
    return np.asarray(hashes[first], dtype=np.uint32)


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """Share of common elements of two sorted arrays without repeats."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
