"""The rows of a run: which corpora, how much of each, which are held out, and what became of them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msm_bench.artefacts import MANIFEST_FILE, read_manifest, sha256_of_file, sha256_of_value
from msm_bench.checkpoints.manifest import Corpus, Data
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE, ChatRow, DocumentRow, read_chats, read_documents
from msm_bench.errors import RequestError
from msm_bench.specs import list_specs, load_spec
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.recipe import Recipe

Rows = Sequence[DocumentRow | ChatRow]
_HELD_OUT = (2, 200)
"""Fewest and most held-out rows."""


@dataclass(frozen=True)
class Chosen:
    """The rows of a run before they are tokens.

    Attributes:
        train: In the order of the corpora.
        held_out: For the loss with and without the adapter.
        parts: Each corpus with the rows taken from it.
        corpora: For the record.
        sha256: Of the hashes of all rows, those of `train` first.
    """

    train: Rows
    held_out: Rows
    parts: tuple[tuple[Path, Rows], ...]
    corpora: tuple[Corpus, ...]
    sha256: str


def choose(data: Sequence[str | Path], uses: Literal["documents", "chats"], recipe: Recipe, allow_control: bool) -> Chosen:
    """Read corpora and choose the rows of a run.

    Args:
        data: Folders (or files) of corpora. `FOLDER=SHARE` takes seeded rows of it so that they make up that share of all
            rows; the rows taken for a smaller share are among those for a larger one. A folder without a share is taken whole.
        uses: Which rows of a corpus.
        recipe: `held_out` and `seed` are read.
        allow_control: Whether rows of a control spec may be trained on.

    Raises:
        RequestError: no data, a share that cannot be had, a corpus that cannot be read, rows of a control spec.
    """
    named = [_with_share(each) for each in data]
    if not any(share is None for _, share in named):
        raise RequestError("No corpus is taken whole.", "Name at least one with --data and without '=SHARE'.")
    read = [(path, share, _read(path, uses)) for path, share in named]
    wholes = sum(len(rows) for _, share, rows in read if share is None)
    mixed = sum(share for _, share, _ in read if share is not None)
    if mixed >= 1:
        raise RequestError(f"The shares add up to {mixed:g}.", "Give shares that add up to less than 1.")
    taken: list[DocumentRow | ChatRow] = []
    corpora, parts = [], []
    for path, share, rows in read:
        used = rows if share is None else _sample(path, rows, round(wholes / (1 - mixed) * share), share, recipe.seed)
        _check_specs(path, used, allow_control)
        taken += used
        parts.append((path, used))
        corpora.append(_describe(path, uses, rows, used))
    train, held_out = _split(_distinct(taken), recipe)
    hashes = [[row.sha256 for row in part] for part in (train, held_out)]
    return Chosen(train, held_out, tuple(parts), tuple(corpora), sha256_of_value(hashes))


def within_budget(examples: Sequence[Example], recipe: Recipe) -> list[Example]:
    """The examples of a run: all, or seeded ones until they hold `token_budget` tokens.

    Raises:
        RequestError: the corpora hold fewer tokens than the budget, so that arms would not be token-matched.
    """
    if recipe.token_budget is None:
        return list(examples)
    held = sum(len(example.ids) for example in examples)
    if held < recipe.token_budget:
        raise RequestError(
            f"The corpora hold {held:,} tokens, fewer than the token_budget of {recipe.token_budget:,}.",
            "Make more rows, or lower --set token_budget for every arm.",
        )
    order = list(range(len(examples)))
    random.Random(f"{recipe.seed}/budget").shuffle(order)
    kept, tokens = [], 0
    for index in order:
        if tokens >= recipe.token_budget:
            break
        kept.append(index)
        tokens += len(examples[index].ids)
    return [examples[index] for index in sorted(kept)]


def check_loss(examples: Sequence[Example]) -> None:
    """Raises `RequestError` for an example without a token that bears loss: training on it would do nothing, silently."""
    empty = [example for example in examples if not (example.labels != IGNORED).any()]
    if not examples or empty:
        what = f"Row '{empty[0].row}' (and {len(empty) - 1} more) bears" if empty else "The data bears"
        raise RequestError(f"{what} no loss: the loss mask is empty.", "Remove those rows, or mend the chat template.")
    covered = [example for example in examples if ((example.labels != IGNORED) & (example.labels != example.ids)).any()]
    if covered:
        raise RequestError(f"Row '{covered[0].row}' has a label that is not its token.", "Mend the trainer.")


def record(chosen: Chosen, examples: Sequence[Example]) -> Data:
    """What was trained on, for checkpoint.json."""
    per_row: dict[str, int] = {}
    for example in examples:
        per_row[example.row] = per_row.get(example.row, 0) + 1
    return Data(
        sha256=chosen.sha256,
        corpora=chosen.corpora,
        rows=len(per_row),
        held_out=len(chosen.held_out),
        examples=len(examples),
        split=sum(count > 1 for count in per_row.values()),
        tokens=sum(len(example.ids) for example in examples),
        loss_tokens=sum(int((example.labels != IGNORED).sum()) for example in examples),
    )


def _with_share(named: str | Path) -> tuple[Path, float | None]:
    path, equals, text = str(named).rpartition("=")
    if not equals or Path(named).exists():
        return Path(named).expanduser(), None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise RequestError(f"'{named}' has no share between 0 and 1 behind its '='.", "Write FOLDER=SHARE, e.g. mix=0.2.")
    return Path(path).expanduser(), share


def _read(path: Path, uses: str) -> Rows:
    return read_documents(path) if uses == "documents" else read_chats(path)


def _sample(path: Path, rows: Rows, count: int, share: float, seed: int) -> Rows:
    if count > len(rows):
        raise RequestError(
            f"A share of {share:g} needs {count} rows of '{path}', which holds {len(rows)}.",
            "Give a smaller share, or make more rows.",
        )
    order = list(range(len(rows)))
    random.Random(f"{seed}/share").shuffle(order)
    return [rows[index] for index in sorted(order[:count])]


def _distinct(rows: Rows) -> Rows:
    """The rows with ids that are unique over all corpora, as they are within each."""
    seen: dict[str, int] = {}
    distinct: list[DocumentRow | ChatRow] = []
    for row in rows:
        count = seen[row.id] = seen.get(row.id, 0) + 1
        distinct.append(row if count == 1 else row.model_copy(update={"id": f"{row.id} ({count})"}))
    return distinct


def _split(rows: Rows, recipe: Recipe) -> tuple[Rows, Rows]:
    count = min(max(round(len(rows) * recipe.held_out), _HELD_OUT[0]), _HELD_OUT[1])
    if len(rows) <= count:
        raise RequestError(f"The corpora hold {len(rows)} rows in all.", "Make more rows.")
    held = set(random.Random(f"{recipe.seed}/held-out").sample(range(len(rows)), count))
    train = [row for index, row in enumerate(rows) if index not in held]
    return train, [row for index, row in enumerate(rows) if index in held]


def control_specs(names: Iterable[str | None]) -> list[str]:
    """Those of the names that are shipped specs and controls, sorted."""
    shipped = set(list_specs())
    return sorted(name for name in {*names} if name is not None and name in shipped and load_spec(name).control)


def _check_specs(path: Path, rows: Rows, allow_control: bool) -> None:
    controls = control_specs(row.spec for row in rows)
    if controls and not allow_control:
        raise RequestError(
            f"'{path}' shows the spec '{controls[0]}', a control that nobody wants a model to follow.",
            "Train on it with --allow-control if it is the contrast of a study; the checkpoint will say so.",
        )


def _describe(path: Path, uses: str, rows: Rows, used: Rows) -> Corpus:
    file = path / (DOCUMENTS_FILE if uses == "documents" else CHATS_FILE) if path.is_dir() else path
    has_manifest = (file.parent / MANIFEST_FILE).is_file()
    return Corpus(
        name=file.parent.resolve().name,
        id=read_manifest(file.parent).id if has_manifest else None,
        sha256=sha256_of_file(file),
        rows=len(rows),
        used=len(used),
        specs=tuple(sorted({row.spec for row in used if row.spec})),
        generators=tuple(sorted({row.generator for row in used})),
    )
