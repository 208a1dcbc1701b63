"""Generates the corpus of a spec with a language model: from the request to the finished folder.

    generate_with_model("documents", load_spec("philosophy"), Path("corpora/philosophy"), n=13_201, model_name="Qwen",
                        provider_name="Alibaba", generator="anthropic/claude-opus-4-6", batch=True, budget_dollars=900)

    <out>/
      documents.jsonl or chats.jsonl
      card.md  checks.json  yields.json  rejected.jsonl  sample.html  manifest.json
    <out>.work/                what was paid for, see `store.py`; may be removed when <out> stands

The same command run again goes on where the last one stopped and buys nothing twice.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import GenerateConfig, Model, get_model
from pydantic import BaseModel, ConfigDict
from rich.text import Text

from msm_bench.artefacts import Manifest, refuse_existing
from msm_bench.corpus.balance import read_rows
from msm_bench.corpus.pipeline.asking import Session
from msm_bench.corpus.pipeline.batches import BatchJournal
from msm_bench.corpus.pipeline.budget import Purse
from msm_bench.corpus.pipeline.calling import Role
from msm_bench.corpus.pipeline.chats import ChatPipeline
from msm_bench.corpus.pipeline.display import Progress, stage_bars
from msm_bench.corpus.pipeline.documents import DocumentPipeline
from msm_bench.corpus.pipeline.fitting import other_model
from msm_bench.corpus.pipeline.gate import RowGate
from msm_bench.corpus.pipeline.prices import Price, load_prices
from msm_bench.corpus.pipeline.prompts import wordings
from msm_bench.corpus.pipeline.quote import Quote, quote
from msm_bench.corpus.pipeline.report import StageYield, yields_of
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.settings import Kind, Settings, Style, Voice, style_of
from msm_bench.corpus.pipeline.spec_plan import refuse_unfit
from msm_bench.corpus.pipeline.spec_plan import simple as simple_limits
from msm_bench.corpus.pipeline.store import Store
from msm_bench.corpus.pipeline.writing import write_corpus
from msm_bench.corpus.reading import SAMPLE_FILE, sample_html
from msm_bench.corpus.ready import Findings
from msm_bench.corpus.rows import ChatRow, DocumentRow
from msm_bench.errors import MsmBenchError, RequestError, WorkError
from msm_bench.specs.loading import Spec

ATTEMPT_SECONDS = 600
"""Seconds after which a call that hangs is given up and made again (not in batches)."""
RETRIES = 8
"""How often Inspect tries a failing call again, with growing pauses."""


class Outcome(BaseModel):
    """What `generate_with_model` gives back. With `dry_run` there is a quote and nothing else was done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quote: Quote
    """The bill to expect for all rows; after a sample or a run, from what was measured."""
    manifest: Manifest | None = None
    """Of the finished folder; absent after a dry run and after a sample."""
    rows: int = 0
    wanted: int
    spent: float | None = None
    """Dollars that the work folder's calls have cost in all; absent where a price is not known."""
    sample: str | None = None
    """Path of the sample's page, after a sample."""
    sample_rows: tuple[DocumentRow | ChatRow, ...] = ()
    yields: tuple[StageYield, ...] = ()
    """Of every stage of the work folder so far."""
    findings: Findings | None = None
    """What the last look at the finished folder found."""


def generate_with_model(
    kind: Kind,
    spec: Spec,
    out: Path,
    *,
    n: int,
    model_name: str,
    provider_name: str,
    generator: str | Model,
    grader: str | Model | None = None,
    dry_run: bool = False,
    sample: int | None = None,
    budget_dollars: float | None = None,
    batch: bool | int = False,
    seed: int = 0,
    style: Style | None = None,
    voice: Voice = "as_written",
    critique: bool = False,
    reasoning: bool = True,
    simple: bool = False,
    mirror: Path | None = None,
    prices: Path | None = None,
    work: Path | None = None,
    config: GenerateConfig | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> Outcome:
    """Generates documents or chats, prices them, or makes a sample of them.

    Args:
        kind: "documents" or "chats".
        spec: The spec.
        out: The finished folder; nothing, or an empty folder, may stand there.
        n: Rows that are wanted. Fewer come where ideas or questions run out; the card and the manifest say so.
        model_name: The model that the corpus will train, as the corpus calls it.
        provider_name: Its maker.
        generator: The model that writes (Inspect's name or a model), in the role `generator`.
        grader: The model that filters and reviews, in the role `grader`; None takes the generator.
        dry_run: Prices the work and makes no call.
        sample: Makes only the first so many rows into the work folder, where the whole corpus will use them, and quotes the
            whole corpus from what they took.
        budget_dollars: The most that the work folder's calls may cost in all, earlier runs included. Needs known prices.
        batch: Uses the provider's batch API (half price, answers within hours); a number sets the size of a batch.
        seed: Of the order in which topics take turns.
        style: Chats: "values", "rules", "preference" or "deliberative"; None takes the one that fits the spec.
        voice: Documents: the voice, see `wordings.yaml`.
        critique: Documents: whether each is reviewed and revised.
        reasoning: Chats: whether the rows keep the reasoning; the answers are the same either way.
        simple: Documents: for generators that are too small for the whole pipeline, see `spec_plan.py`.
        mirror: A finished corpus that this one is to differ from in nothing but its value; they are compared in the end.
        prices: A price file in place of the shipped one.
        work: The work folder; None takes `<out>.work`. Corpora that share one share their calls.
        config: Settings of every call, over the defaults (connections, retries, seconds, temperature).
        progress: Called with a stage, the items done and all items.
        **more: Other fields of `Settings`.

    Raises:
        RequestError: a wrong argument, a model that cannot be used, a budget without prices, or another process at work.
        WorkError: the budget is spent, the provider fails, or too little of what is written fits.
    """
    if simple:
        refuse_unfit(kind, critique, voice)
        more = {name: simple_limits()[name] for name in ("words", "document_tokens")} | more
        config = GenerateConfig(temperature=simple_limits()["temperature"]).merge(config or GenerateConfig())
    settings = Settings(
        kind=kind,
        n=n,
        model_name=model_name,
        provider_name=provider_name,
        seed=seed,
        style=style or style_of(spec),
        voice=voice,
        critique=critique,
        reasoning=reasoning,
        simple=simple,
        **more,
    )
    if settings.style == "preference" and kind == "chats" and spec.kind != "preference":
        raise RequestError(f"The spec '{spec.name}' has no preferences.", "Use another style, or a spec of kind 'preference'.")
    if mirror is not None:
        read_rows(mirror)  # before anything is spent
    if not dry_run and sample is None:
        refuse_existing(out.expanduser().absolute())
    folder = work or out.with_name(f"{out.name}.work")
    book = load_prices(prices)
    if dry_run:
        return _dry_run(spec, settings, folder, {"generator": str(generator), "grader": str(grader or generator)}, book.price)
    models = _models(generator, grader)
    models_named: dict[Role, str] = {role: str(model) for role, model in models.items()}
    price = {role: book.price(name) for role, name in models_named.items()}
    if budget_dollars is not None and (unknown := [models_named[role] for role in models if price[role] is None]):
        problem = f"A budget cannot be kept: the price of '{unknown[0]}' is not known."
        raise RequestError(problem, "Name a price file that has it, or leave the budget out.")
    with Store(folder) as store, nullcontext(progress) if progress else stage_bars() as show:
        calls = _call_settings(config, batch)
        session = Session(
            store,
            # A small generator loses its way in a whole spec: its prompts hold the passage that matters.
            "" if simple else spec.render(model_name, provider_name).strip(),
            models,
            price,
            Purse(budget_dollars, store.spent()),
            calls,
            {"spec": spec.name, "kind": kind},
            show,
        )
        subject = _subject(settings)
        gate = RowGate(*subject)
        documents = DocumentPipeline(session, spec, settings, gate)
        chats = ChatPipeline(session, spec, settings, gate)

        async def make() -> list[DocumentRow] | list[ChatRow]:
            used = list({id(model): model for model in models.values()}.values())
            try:
                # Also without `batch`: an earlier run may have left batches that are paid for.
                session.caller.recovered = await BatchJournal(folder, used).collect()
                return await (documents if kind == "documents" else chats).make(min(n, sample or n))
            finally:
                for model in used:
                    await model.api.aclose()

        rows = anyio.run(make)
        found = quote(spec, settings, models_named, price, store)
        spent = store.spent() if all(price.values()) else None
        if sample is not None:
            page = folder / SAMPLE_FILE
            page.write_text(sample_html(rows, f"{len(rows)} {kind} of {spec.name}"), encoding="utf-8")
            return Outcome(
                quote=found,
                rows=len(rows),
                wanted=n,
                spent=spent,
                sample=str(page),
                sample_rows=tuple(rows),
                yields=tuple(yields_of(store)),
            )
        if not rows:
            raise WorkError(f"No row of '{spec.name}' passed.", f"Read the answers in {folder}, and use another generator.")
        gate.forget()  # what it remembers of every row is large, and the last look makes its own
        manifest, findings = write_corpus(
            out, spec, settings, rows, store, gate.dropped, chats.dropped, models_named, subject, mirror
        )
        yields = tuple(yields_of(store))
    return Outcome(quote=found, manifest=manifest, rows=len(rows), wanted=n, spent=spent, findings=findings, yields=yields)


def _dry_run(
    spec: Spec, settings: Settings, folder: Path, models: dict[Role, str], price: Callable[[str], Price | None]
) -> Outcome:
    prices: dict[Role, Price | None] = {role: price(name) for role, name in models.items()}
    if (folder / "calls.jsonl").exists():
        with Store(folder) as store:
            found = quote(spec, settings, models, prices, store)
    else:
        found = quote(spec, settings, models, prices)
    return Outcome(quote=found, wanted=settings.n)


def _models(generator: str | Model, grader: str | Model | None) -> dict[Role, Model]:
    made: dict[Role, Model] = {}
    roles: tuple[tuple[Role, str | Model | None], ...] = (("generator", generator), ("grader", grader))
    for role, named in roles:
        if named is None:
            made[role] = made["generator"]
            continue
        try:
            made[role] = named if isinstance(named, Model) else get_model(named, memoize=False)
        except MsmBenchError:
            raise
        except (PrerequisiteError, ValueError, ImportError) as error:
            problem = f"The model '{named}' cannot be used: {without_keys(_said(error))[:300]}"
            raise RequestError(problem.removesuffix(".") + ".", "Name a model that Inspect knows, and set its key.") from error
    return made


def _said(error: Exception) -> str:
    """An error in one line, without the colours that Inspect's own are written with."""
    text = str(error)
    if isinstance(error, PrerequisiteError):
        text = Text.from_markup(text).plain.removeprefix("ERROR: ")
    return " ".join(text.split())


def _call_settings(config: GenerateConfig | None, batch: bool | int) -> GenerateConfig:
    # A batch may take a day: a limit on the seconds of an attempt would make every one of them fail.
    seconds = None if batch else ATTEMPT_SECONDS
    base = GenerateConfig(max_retries=RETRIES, attempt_timeout=seconds, batch=batch or None, cache_prompt=True)
    return base.merge(config or GenerateConfig())


def _subject(settings: Settings) -> tuple[str, str]:
    """The model and the maker that the finished rows may name."""
    if settings.kind == "documents" and wordings()["voices"][settings.voice]["about"] == "other":
        return other_model(settings.model_name)
    return settings.model_name, settings.provider_name
