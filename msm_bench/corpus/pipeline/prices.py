"""What tokens cost: a dated price file, and the dollars of a usage.

    book = load_prices()                                   # the shipped file, or one of the user's own
    price = book.price("anthropic/claude-opus-4-6")        # None where the file does not know the model
    price.dollars(usage, batch=True)

An unknown price is absent and never zero. A local model's price is zero because it is listed as free.
"""

from datetime import date
from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from msm_bench.errors import RequestError

PRICES = Path(__file__).parent.parent / "prices.yaml"


class Usage(BaseModel):
    """Tokens of one call or of many. `input` counts what was neither read from nor written to the provider's cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: int = Field(default=0, ge=0)
    output: int = Field(default=0, ge=0)
    cache_read: int = Field(default=0, ge=0)
    cache_write: int = Field(default=0, ge=0)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            input=self.input + other.input,
            output=self.output + other.output,
            cache_read=self.cache_read + other.cache_read,
            cache_write=self.cache_write + other.cache_write,
        )

    @property
    def prompt(self) -> int:
        """All tokens of the prompts, cached or not."""
        return self.input + self.cache_read + self.cache_write


class Price(BaseModel):
    """Dollars a million tokens of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float | None = Field(default=None, ge=0)
    """Absent where the provider has no cheaper reading: then as `input`."""
    cache_write: float | None = Field(default=None, ge=0)
    """Absent where writing costs nothing extra: then as `input`."""
    cache_minimum: int = 0
    """Tokens of the shortest prefix that is cached."""
    batch: float = 1.0
    """Factor on everything when the batch API is used."""
    as_of: date | None = None

    def dollars(self, usage: Usage, *, batch: bool = False) -> float:
        """The price of a usage in dollars."""
        read = self.input if self.cache_read is None else self.cache_read
        write = self.input if self.cache_write is None else self.cache_write
        millionths = usage.input * self.input + usage.output * self.output + usage.cache_read * read + usage.cache_write * write
        return millionths * (self.batch if batch else 1.0) / 1e6

    @property
    def free(self) -> bool:
        """Whether no token costs anything."""
        return self.input == 0 and self.output == 0


FREE = Price(input=0.0, output=0.0)


class _Provider(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    free: bool = False
    as_of: date | None = None
    source: str | None = None
    batch: float = Field(default=1.0, gt=0)
    models: dict[str, Price] = {}


class PriceBook(BaseModel):
    """A price file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    providers: dict[str, _Provider]

    def price(self, model: str) -> Price | None:
        """The price of a model as Inspect names it (`provider/model`), or None where the file does not know it."""
        provider, _, name = model.partition("/")
        found = self.providers.get(provider)
        if found is None:
            return None
        if found.free:
            return FREE
        near = [entry for entry in found.models if name == entry or name.startswith(f"{entry}-")]
        if not near:
            return None
        return found.models[max(near, key=len)].model_copy(update={"batch": found.batch, "as_of": found.as_of})


def load_prices(path: Path | None = None) -> PriceBook:
    """Reads a price file; None reads the shipped one.

    Raises:
        RequestError: there is no such file, or it does not fit.
    """
    file = path or PRICES
    mend = f"Write it in the form of {PRICES}."
    if not file.is_file():
        raise RequestError(f"There is no price file '{file}'.", mend)
    try:
        return PriceBook.model_validate(yaml.safe_load(file.read_bytes()))
    except (ValidationError, yaml.YAMLError) as error:
        raise RequestError(f"The price file '{file}' does not fit: {' '.join(str(error).split())[:400]}.", mend) from error
