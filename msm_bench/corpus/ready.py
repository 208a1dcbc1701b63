"""The last look at a corpus before it is called ready: the checks over the files as they lie, how alike its rows are to each
other, how long they are, how they are spread.

    with writing_folder(out) as folder:
        write_documents(folder / "documents.jsonl", rows)
        findings = look_over(folder, rows, model_name="Qwen", provider_name="Alibaba")     # raises where a check must stop
        seal(folder, ..., settings={..., "findings": findings.model_dump()})
"""

import random
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.balance import mirror_balance, read_rows, words_of
from msm_bench.corpus.checks import CHECKS, CheckName, Report, check_corpus, require_clean
from msm_bench.corpus.checks.duplicates import jaccard, normalised, shingles
from msm_bench.corpus.checks.pieces import pieces_of
from msm_bench.corpus.rows import ChatRow, DocumentRow

CHECKS_FILE = "checks.json"
COMPARED = 150
"""Rows at most, drawn by seed, that the self-similarity compares each with each."""


class Findings(BaseModel):
    """What the last look found (part of the manifest's settings; every finding stands in `checks.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checks: tuple[CheckName, ...]
    """Those that ran; none of them has found anything that must stop a run."""
    not_run: tuple[CheckName, ...]
    to_look_at: dict[str, int]
    """Check to the number of places that a person should look at."""
    words: tuple[int, int, int]
    """Of the shortest row, of the one in the middle, of the longest."""
    similarity_mean: float | None
    """Mean Jaccard similarity (character 5-shingles) of two rows of a drawn sample; absent for a single row."""
    similarity_highest: float | None
    """The highest of that sample."""
    largest_domain: float
    """Share of rows of the largest domain."""
    largest_kind: float
    """Share of rows of the most frequent kind."""
    mirror: tuple[str, ...] | None = None
    """In what this corpus differs from the one that it mirrors; absent where none was named."""

    @property
    def sentence(self) -> str:
        """For the terminal and the card."""
        looks = ", ".join(f"{check} {count}" for check, count in self.to_look_at.items()) or "none"
        skipped = f" Not run: {', '.join(self.not_run)}." if self.not_run else ""
        alike = ""
        if self.similarity_mean is not None and self.similarity_highest is not None:
            mean, highest = self.similarity_mean, self.similarity_highest
            alike = f" Two rows share {mean:.0%} of their 5-shingles on average, at most {highest:.0%}."
        return (
            f"{len(self.checks)} checks passed ({', '.join(self.checks)}).{skipped} Places to look at: {looks}.{alike} "
            f"Words a row: {self.words[0]:,} to {self.words[2]:,}, half of them at most {self.words[1]:,}. "
            f"The largest domain holds {self.largest_domain:.0%} of the rows, the most frequent kind {self.largest_kind:.0%}."
            + ("" if self.mirror is None else f" Beside its mirror: {'; '.join(self.mirror) or 'alike'}.")
        )


def look_over(
    folder: Path,
    rows: Sequence[DocumentRow | ChatRow],
    *,
    model_name: str | None,
    provider_name: str | None,
    checks: Collection[CheckName] = CHECKS,
    mirror: Path | None = None,
    seed: int = 0,
) -> Findings:
    """Checks a corpus folder that is about to be sealed, and writes `checks.json` into it.

    Args:
        folder: The folder with its `documents.jsonl` or `chats.jsonl`.
        rows: The same rows, at least one.
        model_name: The model that the rows may name; None leaves the check of names out.
        provider_name: Its maker.
        checks: The checks to run.
        mirror: A finished corpus that this one is to differ from in nothing but its value.
        seed: Of the drawn sample.

    Raises:
        RequestError: there is no corpus at `mirror`.
        WorkError: a check found what must stop a run; names the first place.
    """
    wanted = [check for check in checks if check != "name" or model_name]
    report = check_corpus(folder, model_name=model_name or "", provider_name=provider_name or "", checks=wanted)
    # The place on the disk is another one for every run and would change the hash of equal work.
    report = report.model_copy(update={"source": "corpus"})
    require_clean(report)
    (folder / CHECKS_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    differs = None if mirror is None else tuple(mirror_balance(rows, read_rows(mirror)).problems())
    return _findings(report, rows, differs, seed)


def _findings(report: Report, rows: Sequence[DocumentRow | ChatRow], mirror: tuple[str, ...] | None, seed: int) -> Findings:
    words = sorted(words_of([row]) for row in rows)
    mean, highest = self_similarity(rows, seed)
    shouts = Counter(problem.check for problem in report.shouts)
    return Findings(
        checks=report.checks,
        not_run=tuple(check for check in CHECKS if check not in report.checks),
        to_look_at=dict(sorted(shouts.items())),
        words=(words[0], int(median(words)), words[-1]),
        similarity_mean=mean,
        similarity_highest=highest,
        largest_domain=_largest(Counter(row.domain for row in rows)),
        largest_kind=_largest(Counter(row.kind for row in rows)),
        mirror=mirror,
    )


def self_similarity(rows: Sequence[DocumentRow | ChatRow], seed: int = 0) -> tuple[float | None, float | None]:
    """Mean and highest Jaccard similarity of the pairs of up to `COMPARED` rows; None and None for fewer than two."""
    drawn = random.Random(seed).sample(range(len(rows)), min(COMPARED, len(rows)))
    sets = [shingles(normalised(pieces_of(rows[place], 1))) for place in drawn]
    found = [jaccard(one, other) for one, other in combinations(sets, 2)]
    return (round(fmean(found), 4), round(max(found), 4)) if found else (None, None)


def _largest(counts: Counter[str]) -> float:
    return round(max(counts.values()) / counts.total(), 4)
