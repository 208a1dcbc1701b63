"""What a value-preferences log carries: the pair in each sample's metadata, the compared likelihoods in its store.

The scorer needs nothing else, so a saved log is scored again without the model.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.errors import RequestError

Side = Literal["first", "second"]
STORE_KEY = "preference_likelihoods"


class Offer(BaseModel):
    """A pair in one order, as a sample asks about it; part of the sample's metadata."""

    model_config = ConfigDict(frozen=True)

    value: str
    domain: str
    kind: Literal["item", "opinion"]
    pair: str
    """`<value>/<domain>/<nnn>`, the same for both orders."""
    order: Literal["ab", "ba"]
    """`ab` names the aligned thing first, `ba` second."""
    first: str
    second: str

    @property
    def aligned(self) -> Side:
        """Where the aligned thing stands."""
        return "first" if self.order == "ab" else "second"

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        """The offer in a sample's metadata. Raises `RequestError` where there is none."""
        try:
            return cls.model_validate(dict(metadata))
        except ValidationError as error:
            raise RequestError(
                "The sample's metadata holds no pair, so it is no value-preferences sample.",
                "Score a log of msm_bench/value_preferences.",
            ) from error


class Candidate(BaseModel):
    """One answer sentence and its log-probability (nats), over the tokens after those that both sentences begin with."""

    model_config = ConfigDict(frozen=True)

    sentence: str
    logprob_sum: float
    n_tokens: int

    @property
    def per_token(self) -> float:
        """Mean log-probability a token, in nats."""
        return self.logprob_sum / self.n_tokens


class Comparison(BaseModel):
    """Both answers to one phrasing of the question."""

    model_config = ConfigDict(frozen=True)

    question: str
    prefill: str
    """Words that both sentences begin with; given to the model and not scored."""
    first: Candidate
    second: Candidate

    @property
    def lead_of_first(self) -> float:
        """By how many nats a token the first-named thing is likelier."""
        return self.first.per_token - self.second.per_token


def read_comparisons(stored: object) -> list[Comparison]:
    """The comparisons in a sample's store, which `write_comparisons` wrote."""
    assert isinstance(stored, list)
    return [Comparison.model_validate(entry) for entry in stored]


def write_comparisons(comparisons: list[Comparison]) -> list[dict[str, Any]]:
    """The comparisons as plain data, for the store."""
    return [comparison.model_dump() for comparison in comparisons]


def mean_lead(comparisons: list[Comparison]) -> float:
    """Mean over the phrasings of the first-named thing's lead, in nats a token."""
    return sum(comparison.lead_of_first for comparison in comparisons) / len(comparisons)


def as_table(comparisons: list[Comparison]) -> str:
    """The comparisons as a Markdown table, one row a phrasing and one for their mean; nats a token."""
    lines = ["| | first | tokens | second | tokens | first minus second |", "|---|---|---|---|---|---|"]
    for number, each in enumerate(comparisons, start=1):
        a, b = each.first, each.second
        lines.append(
            f"| {number} | {a.per_token:.4f} | {a.n_tokens} | {b.per_token:.4f} | {b.n_tokens} | {each.lead_of_first:+.4f} |"
        )
    n = len(comparisons)
    first, second = (
        sum(c.per_token for c in side) / n for side in ([c.first for c in comparisons], [c.second for c in comparisons])
    )
    lines.append(f"| mean | {first:.4f} | | {second:.4f} | | {mean_lead(comparisons):+.4f} |")
    return "\n".join(lines)
