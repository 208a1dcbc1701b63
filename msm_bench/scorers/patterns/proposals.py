"""Exploring, second half: free reasons out of logs, clustered, and proposed as entries that a person may put into a taxonomy.

    propose(["logs/msm"], Path("proposals.yaml"))

As in the paper: reasons in free words, clusters of them, and clusters that mostly stand in the same transcripts taken together
(there at more than 75 % overlap). What a cluster means, and whether it is a pattern, a person decides: the file has blanks.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import write_text_atomically
from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.from_logs import samples_of
from msm_bench.scorers.patterns.taxonomy import Taxonomy, load_taxonomy
from msm_bench.scorers.patterns.windows import TOKEN

SCORER = "free_reasons"
OVERLAP = 0.75
DISTANCE = 0.85
"""Cosine distance up to which reasons are taken together; short phrases share few words even when they mean the same."""
MIN_TRANSCRIPTS = 3
_HEAD = """# Proposed patterns: clusters of reasons that a grader found, the most frequent first. Nothing here is in use.
# To accept one: give it an id, a side (misaligned or aligned) and a definition; keep under `counts` what makes it true, write
# under `not` what does not count; keep two examples or more. Then move the entry under `patterns:` of taxonomy.yaml.
# One that is near a known pattern may be the same thing in other words: then add its wording to that entry instead.
"""


class Reason(BaseModel):
    """One reason that a grader found in one transcript."""

    model_config = ConfigDict(frozen=True)

    reason: str
    quote: str
    transcript: str


class Cluster(BaseModel):
    """Reasons that belong together. `nearest` is the known pattern whose entry shares most words with them, if any does."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The most central reason."""
    transcripts: int
    reasons: tuple[Reason, ...]
    nearest: str | None
    similarity: float


def read_reasons(logdirs: Iterable[str | Path]) -> list[Reason]:
    """The free reasons that stand in logs."""
    found = []
    for log, sample in samples_of(logdirs):
        for name, score in (sample.scores or {}).items():
            if name.split("/")[-1] == SCORER:
                transcript = f"{sample.uuid or log}/{sample.id}/{sample.epoch}"
                for row in (score.metadata or {}).get("reasons") or []:
                    found.append(Reason(reason=row["reason"], quote=row["quote"], transcript=transcript))
    return found


def cluster(reasons: Sequence[Reason], taxonomy: Taxonomy, min_transcripts: int = MIN_TRANSCRIPTS) -> list[Cluster]:
    """Clusters of reasons, the most frequent first; those of fewer than `min_transcripts` transcripts are left out."""
    import numpy as np
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(reasons) < 2:
        return []
    vectorizer = TfidfVectorizer(sublinear_tf=True, stop_words="english", token_pattern=TOKEN)
    entries = [f"{pattern.name} {pattern.definition} {' '.join(pattern.counts)}" for pattern in taxonomy.patterns]
    vectors = vectorizer.fit_transform([*(reason.reason for reason in reasons), *entries]).toarray()
    points, known = vectors[: len(reasons)], vectors[len(reasons) :]
    linked = AgglomerativeClustering(n_clusters=None, distance_threshold=DISTANCE, metric="cosine", linkage="average")
    # A phrase of stop words alone has no direction, and cosine no meaning for it.
    usable = np.flatnonzero(points.any(axis=1))
    if len(usable) < 2:
        return []
    groups: dict[int, list[int]] = {}
    for index, group in zip(usable, linked.fit_predict(points[usable]), strict=True):
        groups.setdefault(int(group), []).append(int(index))
    made = []
    for members in _merged(list(groups.values()), reasons):
        centre = points[members].mean(axis=0)
        central = members[int((points[members] @ centre).argmax())]
        likeness = known @ (centre / np.linalg.norm(centre))
        best = int(likeness.argmax())
        transcripts = len({reasons[i].transcript for i in members})
        if transcripts >= min_transcripts:
            made.append(
                Cluster(
                    name=reasons[central].reason,
                    transcripts=transcripts,
                    reasons=tuple(reasons[i] for i in members),
                    nearest=taxonomy.ids[best] if likeness[best] > 0 else None,
                    similarity=round(float(likeness[best]), 3),
                )
            )
    return sorted(made, key=lambda found: (-found.transcripts, found.name))


def propose(logdirs: Sequence[str | Path], out: Path, min_transcripts: int = MIN_TRANSCRIPTS) -> list[Cluster]:
    """Clusters the free reasons of logs and writes them as taxonomy entries with blanks.

    Raises:
        RequestError: `out` exists, a log folder does not, or the logs hold no free reasons.
    """
    if out.exists():
        raise RequestError(f"'{out}' exists already.", "Name another file, or remove this one first.")
    reasons = read_reasons(logdirs)
    if not reasons:
        raise RequestError(
            f"No transcript under {', '.join(map(str, logdirs))} has free reasons.",
            "Run first: inspect score LOG --scorer msm_bench/free_reasons --model-role grader=PROVIDER/MODEL --action append",
        )
    found = cluster(reasons, load_taxonomy(), min_transcripts)
    write_text_atomically(out, "\n".join([_HEAD, "proposed:", *(_entry(item) for item in found)]) + "\n")
    return found


def _merged(groups: list[list[int]], reasons: Sequence[Reason]) -> list[list[int]]:
    """Takes clusters together whose transcripts overlap, over the smaller of the two, by more than `OVERLAP`."""
    merged: list[list[int]] = []
    for group in sorted(groups, key=len, reverse=True):
        mine = {reasons[i].transcript for i in group}
        for other in merged:
            theirs = {reasons[i].transcript for i in other}
            if min(len(mine), len(theirs)) >= MIN_TRANSCRIPTS and len(mine & theirs) / min(len(mine), len(theirs)) > OVERLAP:
                other.extend(group)
                break
        else:
            merged.append(list(group))
    return merged


def _entry(found: Cluster) -> str:
    """An entry in the taxonomy's form; what is no part of that form stands as a comment, so that the entry moves as it is."""
    examples = list(dict.fromkeys(reason.quote for reason in found.reasons))[:5]
    entry: dict[str, Any] = {
        "id": "",
        "name": found.name,
        "side": "",
        "definition": "",
        "counts": list(dict.fromkeys(reason.reason for reason in found.reasons))[:8],
        "not": [],
        "examples": examples,
    }
    near = f"nearest known pattern: {found.nearest} ({found.similarity:.2f})" if found.nearest else "like no known pattern"
    body = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=120)
    return f"\n  # In {found.transcripts} transcripts; {near}.\n" + indent(body.rstrip("\n"), "  ")
