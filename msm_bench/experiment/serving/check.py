"""Whether a server serves the adapter that it was given: its losses of held-out rows against the checkpoint's own record.

An adapter can be loaded and do nothing, without a word: names that match no layer, a name that leads to the base. So the server
is asked for what the trainer measured. Its losses must lie near those with the adapter, and at least twice as near to them as
to those without it, row by row: two adapters can have equal means.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.checkpoints.held_out import HeldOutRow
from msm_bench.errors import WorkError
from msm_bench.experiment.serving.client import Client

_NOTHING = 1e-3
"""Nats a token: what two passes of one model differ by in bfloat16, at most, in the mean over a few hundred tokens."""


class Match(BaseModel):
    """What the check found, all in nats a token; means and root mean squares weigh a row by its scored tokens."""

    model_config = ConfigDict(frozen=True)

    rows: int
    tokens: int
    """Scored ones."""
    server: float
    """Mean loss of the server under the adapter's name."""
    recorded: float
    """The checkpoint's own, with the adapter."""
    recorded_base: float
    """The checkpoint's own, without it."""
    off_recorded: float
    """Root mean square over the rows of the server's difference from the record with the adapter."""
    off_base: float
    """The same from the record without it."""

    def text(self) -> str:
        """The three numbers, for a message."""
        return (
            f"the server's loss on {self.rows} held-out rows is {self.server:.4f} nats a token, "
            f"the checkpoint's record is {self.recorded:.4f} with the adapter and {self.recorded_base:.4f} without it"
        )


def match(rows: Sequence[HeldOutRow], losses: Sequence[float]) -> Match:
    """Compare a server's mean losses of the rows with the record."""
    weights = [len(row.scored) for row in rows]
    tokens = sum(weights)

    def mean(values: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / tokens

    return Match(
        rows=len(rows),
        tokens=tokens,
        server=mean(losses),
        recorded=mean([row.loss for row in rows]),
        recorded_base=mean([row.loss_base for row in rows]),
        off_recorded=mean([(loss - row.loss) ** 2 for loss, row in zip(losses, rows, strict=True)]) ** 0.5,
        off_base=mean([(loss - row.loss_base) ** 2 for loss, row in zip(losses, rows, strict=True)]) ** 0.5,
    )


def check_checkpoint(client: Client, name: str, base: str, rows: Sequence[HeldOutRow], tolerance: float) -> Match:
    """Compare what a server serves under a checkpoint's name with the checkpoint's record.

    Args:
        client: Of the server.
        name: The adapter's on it.
        base: The base's on it, asked only where the check fails, to say why.
        rows: Of the checkpoint.
        tolerance: Greatest distance from the record, in nats a token.

    Raises:
        WorkError: it is not this adapter on this base; the message says which it looks like, with the numbers.
    """
    found = match(rows, _means(client, name, rows))
    if found.off_recorded <= tolerance and 2 * found.off_recorded <= found.off_base:
        return found
    without = match(rows, _means(client, base, rows))
    raise WorkError(f"{_reason(found, without, name, tolerance)}: {found.text()}; its base gives {without.server:.4f}.", _MEND)


_MEND = (
    "Nothing was evaluated: read the server's log for the adapter's layers, or leave out 'serve' to evaluate in this process."
)


def _reason(found: Match, without: Match, name: str, tolerance: float) -> str:
    if without.off_base > tolerance:
        return f"The server's base is not the one that '{name}' was trained on, or computes otherwise"
    if abs(found.recorded - found.recorded_base) > 2 * _NOTHING > 2 * abs(found.server - without.server):
        return f"The server answers to '{name}' with the base alone, the adapter does nothing"
    if found.off_recorded > tolerance:
        return f"The server answers to '{name}' with another adapter than the checkpoint's"
    return f"The adapter '{name}' changes too little to be told from the base on this server"


def check_some_effect(client: Client, name: str, base: str, ids: Sequence[int]) -> dict[str, Any]:
    """For an adapter without a record: whether the server's losses of a text differ from its base's.

    Returns:
        Mean loss with the adapter and without it, and the root mean square of their difference a token.

    Raises:
        WorkError: they do not.
    """
    places = range(1, len(ids))
    with_adapter, without = client.losses(name, ids, places), client.losses(base, ids, places)
    off = (sum((one - other) ** 2 for one, other in zip(with_adapter, without, strict=True)) / len(without)) ** 0.5
    found = {"server": sum(with_adapter) / len(without), "server_base": sum(without) / len(without), "off_base": off}
    if off < _NOTHING:
        raise WorkError(
            f"The server answers to '{name}' with the base alone, the adapter does nothing: the loss of a text is "
            f"{found['server']:.4f} nats a token under the adapter's name and {found['server_base']:.4f} under the base's.",
            _MEND,
        )
    return found


def _means(client: Client, model: str, rows: Sequence[HeldOutRow]) -> list[float]:
    return [sum(client.losses(model, row.ids, row.scored)) / len(row.scored) for row in rows]
