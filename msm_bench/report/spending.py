"""What was spent: tokens and dollars of the evaluations by the logs' own counts, hours of training by the manifests."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from inspect_ai.log import EvalLog
from inspect_ai.model import ModelUsage
from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.pipeline.prices import PriceBook, Usage, load_prices


class Tokens(BaseModel):
    """Tokens read and written by one side of an evaluation."""

    model_config = ConfigDict(frozen=True)

    read: int = 0
    written: int = 0


class Spent(BaseModel):
    """One arm's spending. What was not measured, or has no known price, is None.

    `subject` is the model under test, `judges` every model in a role; `hours` is the evaluations' time on the clock.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    subject: Tokens | None
    judges: Tokens | None
    dollars: float | None
    unpriced: tuple[str, ...]
    hours: float | None


def spent(arm: str, logs: Sequence[EvalLog], book: PriceBook | None = None) -> Spent:
    """Sums one arm's logs (headers suffice)."""
    book = book or load_prices()
    usage: dict[str, ModelUsage] = defaultdict(ModelUsage)
    roles, seconds, dollars, unpriced = ModelUsage(), 0.0, 0.0, set()
    timed = bool(logs)
    for log in logs:
        for model, used in (log.stats.model_usage or {}).items():
            usage[model] = usage[model] + used
        for role, used in (log.stats.role_usage or {}).items():
            roles = roles + used if role != "model" else roles
        took = _seconds(log)
        timed, seconds = timed and took is not None, seconds + (took or 0.0)
    for model, used in usage.items():
        price = book.price(model)
        if used.total_cost is not None:
            dollars += used.total_cost
        elif price is None:
            unpriced.add(model)
        else:
            dollars += price.dollars(_usage(used))
    judged = _tokens(roles)
    total = _tokens(sum(usage.values(), ModelUsage()))
    return Spent(
        arm=arm,
        subject=Tokens(read=total.read - judged.read, written=total.written - judged.written) if usage else None,
        judges=judged if judged.read + judged.written else None,
        dollars=None if unpriced or not usage else dollars,
        unpriced=tuple(sorted(unpriced)),
        hours=seconds / 3600 if timed else None,
    )


def _usage(used: ModelUsage) -> Usage:
    read, write = used.input_tokens_cache_read or 0, used.input_tokens_cache_write or 0
    return Usage(input=used.input_tokens, output=used.output_tokens, cache_read=read, cache_write=write)


def _tokens(used: ModelUsage) -> Tokens:
    return Tokens(read=_usage(used).prompt, written=used.output_tokens)


def _seconds(log: EvalLog) -> float | None:
    begun, ended = log.stats.started_at, log.stats.completed_at
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if begun and ended else None
