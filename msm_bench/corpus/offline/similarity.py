"""Near-duplicates among composed texts, by MinHash over character shingles."""

import re
from typing import Any

NEAR_DUPLICATE = 0.7
"""Jaccard similarity from which two texts count as near-duplicates; the value probes hold their pairs to the same figure."""
WANTED = 0.5
"""Estimated similarity below which the composer tries to stay."""
ALLOWED = 0.6
"""Estimated similarity from which it refuses a document in any case. Below `NEAR_DUPLICATE`, since 128 permutations estimate a
similarity with a standard error of up to .044."""
SHINGLE = 5
PERMUTATIONS = 128


def shingles(text: str) -> set[str]:
    """The character 5-shingles of a text, case and punctuation left aside."""
    plain = re.sub(r"\W+", " ", text).lower()
    return {plain[i : i + SHINGLE] for i in range(max(1, len(plain) - SHINGLE + 1))}


class Seen:
    """The texts accepted so far."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        # The index finds what is a little below the limits too, so that the comparison of sketches decides.
        self._index = MinHashLSH(threshold=WANTED - 0.1, num_perm=PERMUTATIONS)
        self._sketches: dict[str, Any] = {}
        self.highest = 0.0
        """Highest estimated similarity of two accepted texts that the index brought together; 0 if there are none."""

    def accept(self, text: str, limit: float | None = WANTED) -> bool:
        """Takes a text in unless its estimated similarity to an earlier one reaches the limit; whether it was taken in.

        Without a limit it is always taken in.
        """
        from datasketch import MinHash

        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in sorted(shingles(text))])
        nearest = max((float(sketch.jaccard(self._sketches[key])) for key in self._index.query(sketch)), default=0.0)
        if limit is not None and nearest >= limit:
            return False
        self.highest = max(self.highest, nearest)
        key = str(len(self._sketches))
        self._index.insert(key, sketch)
        self._sketches[key] = sketch
        return True
