"""Recipes: every setting of a training run, named, versioned, and each with where it comes from.

    recipes/<name>.yaml
      name, version, summary
      settings:            setting -> {value, source, reason}
      trainers:            trainer -> settings that differ for it

`source` is `paper B.4` (printed in the paper's appendix), `adapter config` (read from the released adapters) or `chosen`
(nobody says; then `reason` is required). A setting with a default may be left out. `--set k=v` makes its own source. The
checkpoint has the hash of the values.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from msm_bench.artefacts import sha256_of_value
from msm_bench.errors import RequestError, UnknownNameError

RECIPES = Path(__file__).parent / "recipes"
Share = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """The settings that every trainer has. A trainer of one's own adds fields in a subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the adapter (LoRA)
    rank: PositiveInt
    alpha: PositiveFloat
    dropout: Share
    target_modules: tuple[str, ...] = Field(min_length=1)

    # the optimizer (AdamW)
    learning_rate: PositiveFloat
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    warmup: Share
    """Share of the updates."""
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(ge=0)
    """0 for no clipping."""
    adam_beta1: Share
    adam_beta2: Share
    adam_epsilon: PositiveFloat
    epochs: PositiveInt

    # the batches
    max_tokens: int = Field(ge=8)
    """Length of a training row. A longer document is split, a longer chat stops the run."""
    packing: bool
    """Several examples in a row, none of which attends to another; False for one example a row."""
    batch_rows: PositiveInt
    """Rows of one update, over all devices."""
    micro_batch_rows: PositiveInt
    """Rows of one forward pass on one device."""

    # the data
    token_budget: PositiveInt | None
    """Take examples in seeded order until they hold this many tokens; null for all. Makes arms token-matched."""
    held_out: float = Field(gt=0, lt=1)
    """Share of the examples that are kept from training, for the loss with and without the adapter."""
    document_end: str | None
    """The token after each document; null for the tokenizer's EOS."""
    reasoning: bool
    """Whether an assistant's reasoning is trained (where a chat has one) or left out."""
    thinking: bool | None
    """What the chat template gets as `enable_thinking`; null for nothing. Must be what the evaluation uses."""
    chat_template: str | None
    """A template for a tokenizer that has none: a shipped name or a Jinja file. It is saved with the checkpoint."""

    # the machine
    dtype: Literal["auto", "float32", "bfloat16"]
    """Of the frozen weights; "auto" is bfloat16 on a GPU, else float32. The adapter is float32."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"]
    gradient_checkpointing: Literal["auto"] | bool | NonNegativeInt
    """Layers that compute their activations twice to save memory: all, none, the first so many, or as few as the device's
    memory asks for."""
    fused_lora: bool = Field(True, description="the same products with fewer passes over memory")
    """LoRA layers as in `trainers.lora`; false for peft's own."""
    loss_in_pieces: bool = Field(True, description="the logits of a whole row never exist at once")
    """The loss as in `trainers.loss`; false for transformers' own."""
    kernels: Literal["auto", "plain", "compile", "liger"] = Field("plain", description="nothing to compile first")
    """The elementwise parts of a layer: as transformers has them, joined by torch.compile, or Liger's (on a GPU); "auto" is
    compile for packed rows on one GPU, else plain."""
    save_every: PositiveInt
    """Updates between two states that a killed run can go on from."""
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _rows_fit(self) -> "Recipe":
        if self.batch_rows % self.micro_batch_rows:
            raise ValueError(f"batch_rows {self.batch_rows} is no multiple of micro_batch_rows {self.micro_batch_rows}")
        return self


class Source(BaseModel):
    """Where a setting's value comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    reason: str = ""

    @model_validator(mode="after")
    def _chosen_has_a_reason(self) -> "Source":
        if self.source == "chosen" and not self.reason:
            raise ValueError("a chosen value needs a reason")
        return self


R = TypeVar("R", bound=Recipe)


class ResolvedRecipe(BaseModel, Generic[R]):
    """A recipe with its overrides applied.

    Attributes:
        name: The shipped name, or the file's own.
        version: Raised whenever a value in the file changes.
        settings: The values.
        sources: Setting to where its value comes from.
        sha256: Of the values alone: two runs with equal values are comparable, whatever the file was called.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    settings: R
    sources: dict[str, Source]
    sha256: str

    def chosen(self) -> dict[str, str]:
        """The settings that no source fixes, each with its value and the reason for it."""
        values = self.settings.model_dump(mode="json")
        return {
            key: f"{values[key]} ({source.source}{': ' + source.reason if source.reason else ''})"
            for key, source in self.sources.items()
            if source.source not in ("paper B.4", "adapter config")
        }


class _Entry(Source):
    value: Any


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: PositiveInt
    summary: str
    settings: dict[str, _Entry]
    trainers: dict[str, dict[str, _Entry]] = {}


def list_recipes() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def resolve_recipe(name: str, trainer: str, kind: type[R], overrides: Mapping[str, str] | None = None) -> ResolvedRecipe[R]:
    """Read a recipe for one trainer and apply overrides.

    Args:
        name: A shipped name or the path of a YAML file.
        trainer: The trainer's name, for the settings that differ for it.
        kind: The trainer's recipe class.
        overrides: Setting to its value as text (as after `--set`), read as YAML and checked like the file's.

    Raises:
        UnknownNameError: no such recipe or setting.
        RequestError: a file or a value that does not fit; names the setting.
    """
    file = _read(name)
    entries = {**file.settings, **file.trainers.get(trainer, {})}
    values = {key: entry.value for key, entry in entries.items()}
    sources = {key: Source(source=entry.source, reason=entry.reason) for key, entry in entries.items()}
    for key, text in (overrides or {}).items():
        if key not in kind.model_fields:
            raise UnknownNameError(f"setting of '{trainer}'", key, kind.model_fields)
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RequestError(f"--set {key}={text} cannot be read.", "Give a number, a text, true, false or null.") from error
        sources[key] = Source(source="--set", reason="asked for in this run")
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        mend = "Mend it with --set NAME=VALUE, or in the recipe's file."
        raise RequestError(f"The recipe '{name}' does not fit {trainer}: {place}: {first['msg']}.", mend) from error
    for key, field in kind.model_fields.items():
        default = Source(source="default", reason=f"the default of '{trainer}'")
        sources.setdefault(key, Source(source="chosen", reason=field.description) if field.description else default)
    sha256 = sha256_of_value(settings.model_dump(mode="json"))
    return ResolvedRecipe(name=file.name, version=file.version, settings=settings, sources=sources, sha256=sha256)


def parse_overrides(given: list[str] | tuple[str, ...]) -> dict[str, str]:
    """`k=v` texts to a dictionary. Raises `RequestError` for one without `=`."""
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--set {text} holds no '='.", "Write --set NAME=VALUE.")
        pairs[key.strip()] = value.strip()
    return pairs


def _read(name: str) -> _File:
    path = RECIPES / f"{name}.yaml"
    if name not in list_recipes():
        path = Path(name).expanduser()
        if not path.is_file():
            raise UnknownNameError("recipe", name, list_recipes())
    try:
        return _File.model_validate(yaml.safe_load(path.read_bytes()))
    except (ValidationError, yaml.YAMLError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": " ".join(str(error).split())}
        place = ".".join(str(part) for part in detail["loc"])
        mend = "Mend it; recipes/laptop.yaml of this package shows the form."
        raise RequestError(f"{path} is no recipe: {place} {detail['msg']}.", mend) from error
