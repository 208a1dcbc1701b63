"""What was measured before: the paper's printed numbers (arXiv 2605.02087) and independent measurements of the same arms.

    published("published:qwen3-32b")                    the headline figures' arms of a model
    published("published:qwen3-32b/msm+aft-cot")        one arm of them
    published("published:figure-14/qwen2.5-14b")        any table by its id, whole or in part

Arms: `base` (the instruction mix alone), `msm`, `aft`, `aft-cot` (with reasoning: deliberative alignment), and pairs; a spec
    stands in brackets where a table has several. A file here is a list of tables; a number that is printed nowhere is in none
    of them.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.errors import UnknownNameError, WorkError

FOLDER = Path(__file__).parent
PREFIX = "published:"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dispute(_Strict):
    """Where sources disagree about one arm."""

    model: str
    arm: str
    note: str


class PublishedTable(_Strict):
    """One figure or table: what was measured and how, and its numbers by model and arm (and by group or key, see `inner`)."""

    id: str
    where: str
    task: str
    key: str | None = None
    metric: str
    judge: str
    n: int | None
    n_is: str
    seeds: int
    spread: str
    spec: str | None = None
    paper: bool = True
    headline: bool = False
    inner: Literal["group", "key"] | None = None
    notes: tuple[str, ...] = ()
    values: dict[str, dict[str, float | dict[str, float]]]
    disputes: tuple[Dispute, ...] = ()


class PublishedValue(_Strict):
    """One published number with all that is needed not to misread it."""

    table: str
    where: str
    paper: bool
    model: str
    arm: str
    task: str
    key: str
    group: str
    value: float
    metric: str
    judge: str
    n: int | None
    n_is: str
    seeds: int
    notes: tuple[str, ...]

    @property
    def reference(self) -> str:
        """How to name its arm: `published:TABLE/MODEL/ARM`."""
        return f"{PREFIX}{self.table}/{self.model}/{self.arm}"


@cache
def load_tables() -> tuple[PublishedTable, ...]:
    """All tables, in the order of files and of tables in a file."""
    tables = []
    for path in sorted(FOLDER.glob("*.yaml")):
        try:
            tables += [PublishedTable.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
        except (ValidationError, yaml.YAMLError) as error:
            raise WorkError(f"{path.name} does not fit: {error}.", "Install the package again.") from error
    return tuple(tables)


def table_values(table: PublishedTable) -> Iterator[PublishedValue]:
    """The numbers of one table, flat."""
    for model, arms in table.values.items():
        for arm, cell in arms.items():
            disputes = tuple(dispute.note for dispute in table.disputes if (dispute.model, dispute.arm) == (model, arm))
            for name, value in (cell if isinstance(cell, dict) else {"": cell}).items():
                yield PublishedValue(
                    table=table.id,
                    where=table.where,
                    paper=table.paper,
                    model=model,
                    arm=arm,
                    task=table.task,
                    key=name if table.inner == "key" else table.key or "",
                    group=name if table.inner == "group" else "all",
                    value=value,
                    metric=table.metric,
                    judge=table.judge,
                    n=table.n,
                    n_is=table.n_is,
                    seeds=table.seeds,
                    notes=(*table.notes, *disputes),
                )


def published(reference: str) -> list[PublishedValue]:
    """The numbers that a reference names: `published:` and a model or a table's id, then what narrows it down, between slashes.

    A model alone means the headline figures. Capitals do not matter.

    Raises:
        UnknownNameError: A part of the reference names nothing.
    """
    first, *rest = reference.lower().removeprefix(PREFIX).strip("/").split("/")
    tables = {table.id: table for table in load_tables()}
    models = sorted({model for table in tables.values() for model in table.values})
    if first in tables:
        found = list(table_values(tables[first]))
    elif first in models:
        found = [value for table in tables.values() if table.headline for value in table_values(table) if value.model == first]
        if not found:
            found = [value for table in tables.values() for value in table_values(table) if value.model == first]
    else:
        raise UnknownNameError("published name", first, (*models, *tables))
    for part in rest:
        names = sorted({name for value in found for name in (value.model, value.arm)})
        if part not in names:
            raise UnknownNameError("published arm", part, names)
        found = [value for value in found if part in (value.model, value.arm)]
    return found
