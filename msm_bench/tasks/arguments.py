"""Arguments that a task does not take are refused: Inspect alone warns of them and runs the task without."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec

from inspect_ai import Task

from msm_bench.errors import UnknownNameError

P = ParamSpec("P")


def known_arguments(make: Callable[P, Task]) -> Callable[P, Task]:
    """Stands between `@task` and the function below it.

    Inspect passes unknown arguments only to a task that takes any, so the signature shown to it ends in `**unknown`.

    Raises:
        UnknownNameError: When the task is made with an argument that it does not take.
    """
    signature = inspect.signature(make)
    name = getattr(make, "__name__", "task")

    @functools.wraps(make)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Task:
        for given in kwargs:
            if given not in signature.parameters:
                raise UnknownNameError(f"argument of '{name}'", given, sorted(signature.parameters))
        return make(*args, **kwargs)

    unknown = inspect.Parameter("unknown", inspect.Parameter.VAR_KEYWORD)
    # What is called from Python keeps its types; this is what Inspect looks at.
    checked.__signature__ = signature.replace(parameters=[*signature.parameters.values(), unknown])  # type: ignore[attr-defined]
    return checked
