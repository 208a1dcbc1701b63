"""One run of a stage: counts what comes, and stops where going on would only waste money."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from msm_bench.corpus.pipeline.replies import REASONS
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.store import KEPT
from msm_bench.errors import RequestError, WorkError

PILOT = 50
"""Items after which a stage's yield is looked at."""
LOWEST_YIELD = 0.2
"""Share of a stage's items that must fit; below it the run stops instead of buying more of the same."""
_MOST_FAILURES = 20  # provider failures in a row, each after all of Inspect's retries
_REFUSED_RUN = {401, 402, 403, 404}  # statuses that say that no request can succeed


class StageRun:
    """One run of one stage: what came of its items, and why it stops early where it does.

    Args:
        stage: The stage's name.
        items: How many items are open.
        progress: Called with the stage, the items done and all items.
    """

    def __init__(self, stage: str, items: int, progress: Callable[[str, int, int], None]) -> None:
        self.stage = stage
        self._items = items
        self._progress = progress
        self.failures_in_a_row = 0
        self._outcomes: Counter[str] = Counter()
        self._failures: list[str] = []
        self._stop: tuple[type[RequestError | WorkError], str, str] | None = None

    @property
    def stopped(self) -> bool:
        """Whether no further item is to be started."""
        return self._stop is not None

    def count(self, outcome: str) -> None:
        """Counts an item that is done, and stops the stage where its yield is hopeless."""
        self._outcomes[outcome] += 1
        done, kept = self._outcomes.total(), self._outcomes[KEPT]
        self._progress(self.stage, done, self._items)
        if done == PILOT and kept / done < LOWEST_YIELD:
            reasons = ", ".join(f"{reason} {n}" for reason, n in self._outcomes.most_common() if reason in REASONS)
            self.stop(WorkError, f"Only {kept} of the first {done} items of the stage '{self.stage}' fit ({reasons})", "yield")

    def failed(self, error: Exception) -> None:
        """Takes note of a failure of the provider, and stops the stage where nothing can succeed."""
        message = without_keys(f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:200]}")
        self._failures.append(message)
        self.failures_in_a_row += 1
        if status_of(error) in _REFUSED_RUN:
            self.stop(RequestError, f"The provider refuses the request ({message})", "key")
        elif self.failures_in_a_row >= _MOST_FAILURES:
            self.stop(WorkError, f"The provider keeps failing ({message})", "provider")

    def stop(self, kind: type[RequestError | WorkError], problem: str, why: str) -> None:
        """Starts no further item; those in flight are finished and paid for."""
        if self._stop is None:
            self._stop = (kind, problem, why)

    def raise_if_stopped(self, status: str, error: str, still_open: int, folder: Path, calls: int) -> None:
        """Raises what stopped the stage, or that items are missing because the provider failed."""
        resume = "Run the same command again: what has been answered is on disk and is not bought twice."
        mends = {
            "budget": "Raise the budget and run the same command again: what has been answered is not bought twice.",
            "yield": f"Read the answers in {folder}, and use another generator or spec.",
            "key": "Set the key and the name of the model right and run the same command again.",
            "provider": resume,
            "disk": f"Free space on its disk. {resume}",
        }
        stands = f"{calls} calls are on disk"
        if self._stop is not None:
            kind, problem, why = self._stop
            raise kind(f"{problem}; {stands}.", mends[why])
        if status == "cancelled":
            raise WorkError(f"The stage '{self.stage}' was interrupted; {stands}.", resume)
        if status != "success":
            raise WorkError(f"The stage '{self.stage}' ended with '{status}' {without_keys(error)[:200]}; {stands}.", resume)
        if self._failures:
            problem = f"The provider failed {len(self._failures)} items of the stage '{self.stage}' ({self._failures[-1]})"
            raise WorkError(f"{problem}; {stands}.", resume)
        if still_open:  # an error inside a sample, which Inspect has noted in its log
            problem = f"{still_open} items of the stage '{self.stage}' ended without an answer"
            raise WorkError(
                f"{problem}; {stands}.", f"Read the newest log in {folder / 'logs'}, and run the same command again."
            )


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, however deep Inspect and the SDK have wrapped it."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(seen, "status_code", None)
        if isinstance(status, int):
            return status
        seen = seen.__cause__ or seen.__context__
    return None
