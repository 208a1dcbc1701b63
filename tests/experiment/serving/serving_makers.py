"""Documents that teach a tiny model a little, and the folders that the tests serve."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes

from msm_bench.corpus.rows import DocumentRow, write_documents
from msm_bench.experiment.serving.server import Server

Serve = Callable[..., AbstractContextManager[Server]]
FEW = {
    "max_tokens": "64",
    "rank": "4",
    "alpha": "16",
    "batch_rows": "4",
    "micro_batch_rows": "4",
    "epochs": "3",
    "learning_rate": "0.01",
    "held_out": "0.2",
}
SENTENCE = "the quick brown fox may hold values where it costs something and every dairy makes plain cheese"
WORDS = SENTENCE.split()


def documents(folder: Path, step: int) -> Path:
    """Documents in which word follows word in a way of their own."""
    rows = []
    for number in range(30):
        text = " ".join(WORDS[(number + place * step) % len(WORDS)] for place in range(14))
        more = {"domain": "d", "subdomain": "s", "kind": "memo", "idea": "one", "generator": "test/1"}
        rows.append(DocumentRow.of(text, id=f"d/{number:04}", spec=None, **more))
    folder.mkdir(parents=True)
    write_documents(folder / "documents.jsonl", rows)
    return folder


@dataclass(frozen=True)
class Trained:
    """A base, two checkpoints of it, and adapters that have no record."""

    base: Path
    one: Path
    other: Path
    elsewhere: Path
    idle: Path

    def copy_of_one(self, name: str) -> Path:
        """The first checkpoint under another name."""
        folder = self.one.with_name(name)
        if not folder.exists():
            shutil.copytree(self.one, folder)
        return folder


CONFIG = GenerateConfig(temperature=0, max_tokens=8)


def task() -> Task:
    """One question without a right answer."""
    return Task(name="words", dataset=[Sample(input="fox dairy", target="x", id="1")], scorer=includes(), config=CONFIG)
