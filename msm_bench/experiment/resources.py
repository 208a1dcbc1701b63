"""What a cell asks a cluster for: GPUs, CPUs, memory, and the configuration of Accelerate that it trains under.

An experiment may say it (`resources`); what it leaves out is worked out from the size of the base model.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.experiment.cells import EvalCell, TrainCell
from msm_bench.experiment.places import Cell
from msm_bench.experiment.settings import Asked, Experiment

GPU_BYTES = 72e9
"""Of an 80 GB card, what weights and activations may take."""
_FITS_A_CPU = 1e9
"""Parameters up to which a model is run without a GPU where nothing says otherwise."""
SHARE = 0.125
"""Of a GPU, where there is one, for such a model: up to fifteen trainings of 135M ran side by side on one H100."""
_SIZES = (1, 2, 4, 8)


class Needs(BaseModel):
    """What one cell asks for."""

    model_config = ConfigDict(frozen=True)

    gpus: float = 0
    """A whole number, or a share of one below 1."""
    cpus: int = 1
    memory_gb: float = 4
    hours: float = 24
    """After which a queue may end it; it goes on from its last state."""
    accelerate: str | None = None
    """Configuration of Accelerate for a training cell; None trains in one process."""


def needs_of(cell: Cell, experiment: Experiment, gpus: bool | None) -> Needs:
    """What a cell asks for.

    Args:
        cell: The cell.
        experiment: Its experiment, whose `resources` come first.
        gpus: Whether there are GPUs where it will be made: with them a small model asks for a share of one, without them
            nothing does by itself. None where it is not known.
    """
    from msm_bench.experiment.costs import load_rates

    parameters = experiment.base_parameters or load_rates().parameters.get(experiment.base) or 0.0
    kind = type(cell).__name__.removesuffix("Cell")
    asked: Asked = {"Corpus": experiment.resources.corpus, "Train": experiment.resources.training}.get(
        kind, experiment.resources.evaluation
    )
    if isinstance(cell, EvalCell) and experiment.serve is not None:
        wanted: float = 0 if gpus is False else experiment.serve.gpus
    else:
        wanted = 0 if kind == "Corpus" else _gpus(parameters, kind == "Train", gpus)
    wanted = wanted if asked.gpus is None else asked.gpus
    found: dict[str, Any] = {
        "gpus": wanted,
        "cpus": max(1, int(4 * wanted)),
        # The weights pass through the memory of the host on their way to the cards.
        "memory_gb": round(2 + 2.5e-9 * parameters, 1),
        "accelerate": f"gpu-{wanted:g}" if isinstance(cell, TrainCell) and wanted > 1 else None,
    }
    given = {name: value for name, value in asked.model_dump().items() if value is not None}
    return Needs.model_validate({**found, **given})


def _gpus(parameters: float, training: bool, gpus: bool | None) -> float:
    if gpus is False:
        return 0
    if parameters <= _FITS_A_CPU:
        return SHARE if gpus else 0
    # bfloat16 weights; a rank-64 adapter has about 2 % of the parameters, each with 16 bytes of weight, gradient and Adam.
    spread, whole = (2 + 0.02 * 16, 0.6) if training else (2, 0.1)
    for count in _SIZES:
        if parameters * (spread / count + whole) <= GPU_BYTES:
            return count
    return _SIZES[-1]
