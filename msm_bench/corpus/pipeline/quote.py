"""What a corpus will cost, before anything is spent: calls and tokens by stage, and dollars with and without the savings.

Tokens of prompts are counted from the prompts themselves; what will be written is expected (`expectations.yaml`), or measured
where the work folder already holds answers of a stage (a sample, an interrupted run).
"""

import math
from collections import defaultdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.pipeline.calling import Role
from msm_bench.corpus.pipeline.chats import questions_a_call
from msm_bench.corpus.pipeline.planning import MOST_IDEAS, Shape
from msm_bench.corpus.pipeline.prices import Price, Usage
from msm_bench.corpus.pipeline.prompts import expectations, fill, slots_of, wordings
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.corpus.pipeline.store import Store
from msm_bench.specs.loading import Spec


class StageQuote(BaseModel):
    """Calls and tokens of one stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    role: Role
    calls: int
    shared_tokens: int
    """Tokens of spec and instruction a call: what a provider can cache."""
    own_tokens: int
    """Other tokens of the prompt a call."""
    output_tokens: int
    """Tokens a call writes."""
    measured: bool
    """Whether the tokens come from calls that were made."""

    def usage(self, cached: float) -> Usage:
        """Tokens of all calls when this share of them finds its shared part in the cache."""
        shared = self.calls * self.shared_tokens
        read = round(shared * cached)
        return Usage(
            input=self.calls * self.own_tokens + (0 if cached else shared),
            output=self.calls * self.output_tokens,
            cache_read=read,
            cache_write=shared - read if cached else 0,
        )


class Quote(BaseModel):
    """The bill to expect. Dollars are absent where a model's price is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    n: int
    models: dict[Role, str]
    prices_as_of: str | None
    stages: tuple[StageQuote, ...]
    prompt_tokens: int
    output_tokens: int
    dollars: dict[str, float] | None
    """By way: plain, caching, batch, batch and caching."""
    spent: float
    """Dollars that the work folder's calls have cost already; the quote does not subtract them."""

    def __rich__(self) -> Any:
        """A table for the terminal."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("Stage", "Calls", "Shared", "Own", "Written", "Measured")
        for stage in self.stages:
            numbers = (stage.calls, stage.shared_tokens, stage.own_tokens, stage.output_tokens)
            table.add_row(stage.stage, *(f"{number:,}" for number in numbers), "yes" if stage.measured else "no")
        if self.dollars is None:
            bill = f"The price of {', '.join(sorted(set(self.models.values())))} is not known."
        else:
            bill = ", ".join(f"{way} ${dollars:,.2f}" for way, dollars in self.dollars.items())
            if self.dollars["caching"] == self.dollars["plain"] > 0:
                bill += " (caching saves nothing: what the calls share is too short for this provider to cache)"
        total = f"{self.prompt_tokens:,} tokens read, {self.output_tokens:,} written"
        return Group(table, Text(f"{self.n:,} {self.kind}: {total} (tokens a call above)"), Text(bill))


def quote(
    spec: Spec,
    settings: Settings,
    models: dict[Role, str],
    prices: dict[Role, Price | None],
    store: Store | None = None,
) -> Quote:
    """The bill for a corpus.

    Args:
        spec: The spec.
        settings: What is wanted.
        models: Name of the model of each role.
        prices: Price of the model of each role; None where it is not known.
        store: An open work folder whose answers are measured.
    """
    plan = _documents(spec, settings) if settings.kind == "documents" else _chats(spec, settings)
    measured = _measured(store)
    stages = tuple(_with_measured(stage, measured) for stage in plan if stage.calls)
    expected = expectations()
    dollars: dict[str, float] | None = None
    if all(prices[stage.role] is not None for stage in stages):
        dollars = {
            way: round(sum(_dollars(stage, prices[stage.role], batch, caching) for stage in stages), 2)
            for way, batch, caching in (
                ("plain", False, 0.0),
                ("caching", False, expected["cache_hits"]["direct"]),
                ("batch", True, 0.0),
                ("batch and caching", True, expected["cache_hits"]["batch"]),
            )
        }
    dates = [price.as_of.isoformat() for price in prices.values() if price and price.as_of]
    return Quote(
        kind=settings.kind,
        n=settings.n,
        models=models,
        prices_as_of=min(dates, default=None),
        stages=stages,
        prompt_tokens=sum(stage.calls * (stage.shared_tokens + stage.own_tokens) for stage in stages),
        output_tokens=sum(stage.calls * stage.output_tokens for stage in stages),
        dollars=dollars,
        spent=store.spent() if store is not None else 0.0,
    )


def _dollars(stage: StageQuote, price: Price | None, batch: bool, caching: float) -> float:
    assert price is not None
    # What is shorter than the provider's minimum is never cached.
    cached = caching if stage.shared_tokens >= price.cache_minimum and price.cache_read is not None else 0.0
    return price.dollars(stage.usage(cached), batch=batch)


def _documents(spec: Spec, settings: Settings) -> list[StageQuote]:
    make = _Maker(spec, settings)
    if settings.simple:
        count = math.ceil(settings.n / expectations()["kept"]["simple"])
        return [make("documents", "document_simple", count, words=settings.words)]
    wanted = Shape.of(settings.n, settings.types)
    domains = round(sum(wanted.domains) / 2)
    subdomains = domains * round(sum(wanted.subdomains) / 2)
    shape = wanted.filled(settings.n, subdomains)
    cells = subdomains * shape.types
    idea_calls = cells * math.ceil(shape.ideas / MOST_IDEAS)
    documents = math.ceil(settings.n / expectations()["kept"]["documents"])
    mode = "rules" if spec.kind == "rules" else "values"
    rewrite = "text" in wordings()["voices"][settings.voice]
    stages = [
        make("domains", "domains", 1),
        make("subdomains", "subdomains", domains),
        make("assertions", f"assertions_{mode}", subdomains),
        make("types", "types", subdomains),
        make("ideas", "ideas", idea_calls, each=min(MOST_IDEAS, shape.ideas)),
        make("documents", f"document_{mode}", documents, words=settings.words),
    ]
    if settings.critique:
        stages += [make("critique", "critique", documents, role="grader"), make("revise", "revise", documents)]
    if rewrite:
        stages.append(make("voice", "voice", documents))
    return stages


def _chats(spec: Spec, settings: Settings) -> list[StageQuote]:
    make = _Maker(spec, settings)
    preference = settings.style == "preference"
    things = len(spec.likes + spec.dislikes) if preference else 0
    domains = things or max(5, math.ceil(settings.n / settings.questions_per_domain))
    candidates = math.ceil(settings.n / expectations()["kept"]["chats"])
    count = questions_a_call(settings, domains)
    topics = 0 if preference else math.ceil(domains / 50)
    return [
        make("chat_domains", "chat_domains", topics, each=min(50, domains)),
        make("questions", "questions_preference" if preference else "questions", math.ceil(candidates / count), each=count),
        make("responses", f"response_{settings.style}", candidates),
        make("filter", "filter", candidates, role="grader"),
    ]


class _Maker:
    """Makes the quote of a stage from its prompt and what it is expected to write."""

    def __init__(self, spec: Spec, settings: Settings) -> None:
        self._settings = settings
        # A small generator is shown a passage and not the spec.
        self._spec_tokens = 0 if settings.simple else tokens_of(spec.render(settings.model_name, settings.provider_name))
        self._slots = defaultdict(str, model_name=settings.model_name, provider_name=settings.provider_name)

    def __call__(
        self, stage: str, prompt: str, calls: int, *, role: Role = "generator", each: int = 0, words: int = 0
    ) -> StageQuote:
        expected = expectations()
        output = expected["output_tokens"]
        written = output.get(stage) or output[f"{stage}_each"] * each
        if words and words != expected["document_words"]:
            written = round(words * expected["tokens_per_word"])
        filled = fill(prompt, **{name: self._slots[name] for name in slots_of(prompt)})
        return StageQuote(
            stage=stage,
            role=role,
            calls=math.ceil(calls * (1 + expected["retries"])),
            shared_tokens=self._spec_tokens + tokens_of(filled.instruction),
            own_tokens=tokens_of(filled.message)
            + expected["message_tokens"].get("simple" if self._settings.simple else stage, 0),
            output_tokens=written,
            measured=False,
        )


def tokens_of(text: str) -> int:
    """Tokens of a text, estimated from its characters; a little too many for English prose."""
    return math.ceil(len(text) / float(expectations()["characters_per_token"]))


def _measured(store: Store | None) -> dict[str, tuple[int, Usage]]:
    found: dict[str, tuple[int, Usage]] = {}
    for _, entry in store.entries() if store is not None else ():
        if entry.usage is not None:
            calls, usage = found.get(entry.stage, (0, Usage()))
            found[entry.stage] = (calls + 1, usage + entry.usage)
    return found


def _with_measured(stage: StageQuote, measured: dict[str, tuple[int, Usage]]) -> StageQuote:
    if stage.stage not in measured:
        return stage
    calls, usage = measured[stage.stage]
    # The shared part is known from the prompt; what was measured beyond it is the calls' own.
    own = max(0, round(usage.prompt / calls) - stage.shared_tokens)
    return stage.model_copy(update={"own_tokens": own, "output_tokens": round(usage.output / calls), "measured": True})
