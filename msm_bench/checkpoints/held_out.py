"""`held_out.jsonl`: a few held-out rows of a checkpoint as tokens, with the loss of each, with and without the adapter.

Whoever serves the checkpoint elsewhere asks that server for the same losses. An adapter that was not loaded, or that is not
this one, gives others.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from msm_bench.errors import CorruptWeightsError

HELD_OUT_FILE = "held_out.jsonl"


class HeldOutRow(BaseModel):
    """One held-out row, or its beginning where it is long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: str
    """Id of the corpus row."""
    ids: tuple[int, ...] = Field(min_length=2)
    """Its tokens. The first is the first of the sequence: nothing goes before it."""
    scored: tuple[int, ...] = Field(min_length=1)
    """The places in `ids` of the tokens that bear loss, rising."""
    loss: FiniteFloat
    """Mean over the scored tokens with the adapter, in nats."""
    loss_base: FiniteFloat
    """The same without it."""

    @model_validator(mode="after")
    def _places_fit(self) -> Self:
        if sorted(set(self.scored)) != list(self.scored) or self.scored[0] < 1 or self.scored[-1] >= len(self.ids):
            raise ValueError("scored does not hold rising places behind the first token")
        return self


def read_held_out(folder: Path) -> tuple[HeldOutRow, ...] | None:
    """The held-out rows of a checkpoint's folder, None where there are none (an adapter made elsewhere).

    Raises:
        CorruptWeightsError: the file cannot be read or holds no row.
    """
    path = folder / HELD_OUT_FILE
    if not path.is_file():
        return None
    try:
        rows = tuple(HeldOutRow.model_validate_json(line) for line in path.read_bytes().splitlines() if line.strip())
    except ValidationError as error:
        raise CorruptWeightsError(
            f"{path} does not fit: {error.errors()[0]['msg']}.", "Copy the whole checkpoint again."
        ) from error
    if not rows:
        raise CorruptWeightsError(f"{path} holds no row.", "Copy the whole checkpoint again.")
    return rows
