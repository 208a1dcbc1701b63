"""One tree of errors. Every message a user sees says what is wrong and ends with what to do about it.

`RequestError` and its children mean that the request was wrong (exit code 2), `WorkError` and its children
that the work failed (exit code 1). All derive from Inspect's `PrerequisiteError`, so that `inspect eval`
prints them as one message without a traceback.
"""

import difflib
from collections.abc import Iterable

from inspect_ai._util.error import PrerequisiteError  # Inspect prints this class without a traceback


class MsmBenchError(PrerequisiteError):
    """Base of all errors of this package.

    Args:
        problem: What is wrong, one sentence with its full stop.
        mend: What to do about it, one sentence with its full stop.
    """

    exit_code = 1

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(f"{problem} {mend}")
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.problem} {self.mend}"


class RequestError(MsmBenchError, ValueError):
    """The request was wrong: a bad argument, a missing file, a missing key."""

    exit_code = 2


class UnknownNameError(RequestError):
    """A name that is not in a fixed set.

    Args:
        what: What was named, e.g. "scenario".
        given: The name that was given.
        valid: The names that exist.
    """

    def __init__(self, what: str, given: object, valid: Iterable[str]) -> None:
        names = list(valid)
        near = difflib.get_close_matches(str(given), names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        super().__init__(f"Unknown {what} '{given}'.{hint}", f"Use one of: {', '.join(names)}.")


class ModelNotFoundError(RequestError):
    """A model's name leads to no folder and no hub repository."""


class NotAModelError(RequestError):
    """A folder that exists but holds no model."""


class ContextTooShortError(RequestError):
    """A prompt (and the tokens to be generated) do not fit the model's context."""


class MissingExtraError(RequestError):
    """An optional package is needed and is not installed."""


class WorkError(MsmBenchError, RuntimeError):
    """The request was right, the work failed."""


class CorruptWeightsError(WorkError):
    """Weights that cannot be read or do not match their checksum."""


class DownloadError(WorkError):
    """A download failed or brought something other than what was asked for."""


class CacheError(WorkError):
    """A folder that must be written to cannot be written to, or its disk is full."""
