"""What is shown while a corpus is made: one bar a stage. Inspect's own display stays off, its logs hold the details."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]


@contextmanager
def inspect_display(kind: str) -> Iterator[None]:
    """Sets Inspect's display for a block and leaves it as it was; an `eval` that the same process runs later is not changed."""
    from inspect_ai._display.core import active
    from inspect_ai.util import _display as shown

    before = shown._display_type, active._active_display
    active._active_display = None
    shown.init_display_type(kind)
    try:
        yield
    finally:
        shown._display_type, active._active_display = before


@contextmanager
def stage_bars() -> Iterator[Progress]:
    """A function that shows a stage's progress on stderr; where stderr is no terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bars: dict[str, TaskID] = {}

        def show(stage: str, done: int, of: int) -> None:
            if stage not in bars or done < progress.tasks[bars[stage]].completed:
                bars[stage] = progress.add_task(stage, total=of)
            progress.update(bars[stage], completed=done, total=of)

        yield show
