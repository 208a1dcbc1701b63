"""What a user sees while the embedded model is fetched: bars on a terminal, two lines elsewhere, all on stderr."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Steps:
    """Shows the steps of one fetch. Use as a context manager.

    Args:
        show: False for no output at all.
    """

    def __init__(self, show: bool) -> None:
        # The stream is taken now: noisy libraries run under a redirected sys.stderr.
        self._console = Console(file=sys.stderr, quiet=not show, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not (show and self._console.is_terminal),
        )

    def __enter__(self) -> "Steps":
        self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bars.stop()

    def line(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(text, markup=False, highlight=False)

    @contextmanager
    def download(self, what: str, folder: Path, total: int) -> Iterator[None]:
        """Show how many bytes lie in `folder` against `total` until the block ends."""
        task = self._bars.add_task(what, total=total, amount="")
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                size = min(_largest(folder), total)
                self._bars.update(task, completed=size, amount=f"{size / 1e6:.1f} of {total / 1e6:.1f} MB")

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
            self._bars.update(task, completed=total, amount=f"{total / 1e6:.1f} MB")
        finally:
            done.set()
            watcher.join()

    @contextmanager
    def work(self, what: str) -> Iterator[None]:
        """Show a step of unknown length until the block ends."""
        task = self._bars.add_task(what, total=None, amount="")
        yield
        self._bars.update(task, total=1, completed=1)


def _largest(folder: Path) -> int:
    # Downloads are dominated by one file, which a downloader may copy before it is done: a sum would count it twice.
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # moved away between the listing and the look
            continue
    return max(sizes)
