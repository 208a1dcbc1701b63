"""`msm-bench generate documents|chats SPEC`: one call that writes a corpus as an artefact.

<out>/
  documents.jsonl or chats.jsonl    the rows
  card.md                           what they are, for people and for the hub
  checks.json                       what the checks found in the finished rows
  sample.html                       some of the rows, to read
  manifest.json                     parents, settings, findings, seed, versions, cost, hashes
"""

import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType

from msm_bench.artefacts import refuse_existing, seal, sha256_of_text, writing_folder
from msm_bench.corpus.balance import read_rows, words_of
from msm_bench.corpus.card import card_text
from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.offline.chats import compose_chats, forms
from msm_bench.corpus.offline.documents import compose_documents
from msm_bench.corpus.offline.material import kinds
from msm_bench.corpus.offline.similarity import Seen
from msm_bench.corpus.reading import SAMPLE_FILE, print_sample, reading_sample, sample_html
from msm_bench.corpus.ready import Findings, look_over
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE, ChatRow, DocumentRow, write_chats, write_documents
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.specs import Spec, load_spec

CorpusKind = Literal["documents", "chats"]
DEFAULT_N: dict[CorpusKind, int] = {"documents": 400, "chats": 240}
WORDS_A_DOCUMENT = 265
"""Mean length of a composed document, measured over the shipped specs; for a dry run."""


class Generation(BaseModel):
    """What was written, or in a dry run would be."""

    model_config = ConfigDict(frozen=True)

    kind: CorpusKind
    spec: str
    out: Path
    dry_run: bool
    generator: str
    rows: int
    id: str | None = None
    """Content hash of the artefact; absent in a dry run."""
    words: int | None = None
    """Words in the texts or messages; in a dry run an estimate, absent for chats."""
    kinds: dict[str, int] = {}
    """Rows of each kind of document or question; empty in a dry run."""
    highest_similarity: float | None = None
    """Of two documents, estimated by MinHash; absent for chats, in a dry run and where no two were close enough to compare."""
    seconds: float | None = None
    findings: Findings | None = None
    """Of the checks over the finished folder; absent in a dry run and after a sample."""
    quote: Any = None
    """The price, where a model writes; see `pipeline.quote`."""
    yields: tuple[Any, ...] = ()
    """What came of each stage, where a model writes; see `pipeline.report`."""
    sample: Path | None = None
    """Page of the sample, after a sample."""
    sample_rows: tuple[DocumentRow | ChatRow, ...] = ()


def generate(
    kind: str,
    spec: str,
    out: Path,
    offline: bool = True,
    n: int | None = None,
    model_name: str | None = None,
    provider_name: str | None = None,
    seed: int = 0,
    dry_run: bool = False,
    allow_control: bool = False,
    generator: str | None = None,
    grader: str | None = None,
    mirror: Path | None = None,
    **pipeline: Any,
) -> Generation:
    """Writes a corpus made from a spec, as an artefact folder.

    Args:
        kind: "documents" or "chats".
        spec: A shipped spec's name or the path of a spec's folder.
        out: Where to; nothing may stand there.
        offline: Compose without a model and without a key; otherwise the model `generator` writes.
        n: Rows; by default 400 documents or 240 chats.
        model_name: What the model is called in the texts; documents need it, since a text about another model teaches nothing.
        provider_name: Who makes the model, in the texts; documents need it.
        seed: Other seeds give other rows.
        dry_run: Check everything and write nothing.
        allow_control: Also for a control spec, which describes what nobody wants.
        generator: Without `offline`: the model that writes, by its Inspect name.
        grader: Without `offline`: the model that filters and reviews; by default the generator.
        mirror: A finished corpus that this one is to differ from in nothing but its value; they are compared in the end.
        pipeline: Without `offline`: further settings of `pipeline.generate.generate_with_model`.

    Raises:
        RequestError: an argument does not fit, something stands at `out`, or the spec is a control and that was not allowed.
        WorkError: the spec gives no further row that is different enough.
    """
    if kind not in DEFAULT_N:
        raise UnknownNameError("kind of corpus", kind, DEFAULT_N)
    wanted: CorpusKind = "chats" if kind == "chats" else "documents"
    loaded = load_spec(spec)
    if loaded.control and not allow_control:
        raise RequestError(
            f"The spec '{loaded.name}' is a control: it describes what nobody should want of a model.",
            "Pass --allow-control if a study needs it.",
        )
    count = DEFAULT_N[wanted] if n is None else n
    if count < 1:
        raise RequestError(f"{count} rows were asked for.", "Ask for at least one.")
    needs_model = {"generator": generator, "grader": grader, **pipeline}
    if offline and (given := [name for name, value in needs_model.items() if value]):
        problem = f"A corpus that is composed offline takes no {given[0].removesuffix('_dollars')}."
        raise RequestError(problem, "Leave it out, or leave --offline out.")
    if not offline:
        names = {"model_name": model_name, "provider_name": provider_name}
        return _with_model(
            wanted,
            loaded,
            out,
            names,
            n=count,
            generator=generator,
            grader=grader,
            seed=seed,
            dry_run=dry_run,
            mirror=mirror,
            **pipeline,
        )
    if wanted == "chats":
        # Fails here, before anything is written, where a spec has nothing to ask about.
        next(compose_chats(loaded, 1, seed))
    elif not (model_name or "").strip() or not (provider_name or "").strip():
        raise RequestError(
            "Documents name the model and its maker, and no name was given.", "Pass --model-name and --provider-name."
        )
    refuse_existing(out.expanduser())
    if mirror is not None:
        read_rows(mirror)
    if dry_run:
        words = count * WORDS_A_DOCUMENT if wanted == "documents" else None
        return Generation(kind=wanted, spec=loaded.name, out=out, dry_run=True, generator=GENERATOR, rows=count, words=words)
    names = {"model_name": model_name, "provider_name": provider_name} if wanted == "documents" else {}
    return _write(wanted, loaded, out, count, names, seed, mirror)


def _with_model(
    kind: CorpusKind, spec: Spec, out: Path, names: dict[str, str | None], *, generator: str | None, **settings: Any
) -> Generation:
    from msm_bench.corpus.pipeline.generate import generate_with_model

    if generator is None:
        raise RequestError("No model was named that could write.", "Name a generator, or compose without one: --offline.")
    given = {name: text for name, text in names.items() if text and text.strip()}
    if len(given) < len(names):
        raise RequestError("No model was named to write about.", "Pass --model-name and --provider-name.")
    outcome = generate_with_model(
        kind,
        spec,
        out,
        generator=generator,
        model_name=given["model_name"],
        provider_name=given["provider_name"],
        **settings,
    )
    return Generation(
        kind=kind,
        spec=spec.name,
        out=out,
        dry_run=bool(settings["dry_run"]),
        generator=generator,
        rows=outcome.wanted if settings["dry_run"] else outcome.rows,
        id=outcome.manifest.id if outcome.manifest else None,
        findings=outcome.findings,
        quote=outcome.quote,
        yields=outcome.yields,
        sample=Path(outcome.sample) if outcome.sample else None,
        sample_rows=outcome.sample_rows,
    )


def _write(
    kind: CorpusKind, spec: Spec, out: Path, n: int, names: dict[str, str | None], seed: int, mirror: Path | None
) -> Generation:
    began = time.monotonic()
    with writing_folder(out) as folder:
        rows: list[DocumentRow] | list[ChatRow]
        if kind == "documents":
            seen = Seen()
            rows = list(compose_documents(spec, n, names["model_name"] or "", names["provider_name"] or "", seed, seen))
            write_documents(folder / DOCUMENTS_FILE, rows)
            similarity = round(seen.highest, 3) if seen.highest else None
            known = list(kinds())
        else:
            rows = list(compose_chats(spec, n, seed))
            write_chats(folder / CHATS_FILE, rows)
            similarity = None
            known = list(forms())
        words = words_of(rows)
        counts = Counter(row.kind for row in rows)
        by_kind = {name: counts[name] for name in known if counts[name]}
        # Chats name nobody, so that they fit every model; there is then no name to check.
        findings = look_over(
            folder,
            rows,
            model_name=names.get("model_name"),
            provider_name=names.get("provider_name"),
            mirror=mirror,
            seed=seed,
        )
        card = card_text(kind, spec, len(rows), words, by_kind, similarity, names, seed, findings.sentence)
        (folder / "card.md").write_text(card, encoding="utf-8")
        page = sample_html(reading_sample(rows, seed=seed), f"{spec.name}: a sample of {len(rows):,} {kind}")
        (folder / SAMPLE_FILE).write_text(page, encoding="utf-8")
        settings: dict[str, Any] = {"spec": spec.name, "n": n, "offline": True, "generator": GENERATOR, **names}
        seconds = round(time.monotonic() - began, 2)
        manifest = seal(
            folder,
            kind,
            # The hash of spec.md, as in spec.yaml: by it every corpus of a spec names the same parent.
            parents={"spec": sha256_of_text(spec.text)},
            settings={**settings, "findings": findings.model_dump()},
            seed=seed,
            packages=["datasketch", "pydantic", "pyyaml"],
            cost={"seconds": seconds, "dollars": 0.0},
        )
    return Generation(
        kind=kind,
        spec=spec.name,
        out=out,
        dry_run=False,
        generator=GENERATOR,
        rows=len(rows),
        id=manifest.id,
        words=words,
        kinds=by_kind,
        highest_similarity=similarity,
        seconds=seconds,
        findings=findings,
    )


def render(made: Generation) -> RenderableType:
    """What was written, for the terminal: price, yields and a sample's rows first, where there are any; then what it is."""
    words = f", {made.words:,} words" if made.words else ""
    parts: list[RenderableType] = [made.quote] if made.quote is not None else []
    if made.yields:
        from msm_bench.corpus.pipeline.report import yield_table

        parts.append(yield_table(made.yields))
    if made.sample_rows:
        parts.append(print_sample(made.sample_rows))
    if made.dry_run:
        parts.append(f"Would write {made.rows:,} {made.kind} of {made.spec}{words} with {made.generator} to {made.out}.")
    elif made.sample is not None:
        parts.append(f"A sample of {made.rows:,} {made.kind} of {made.spec} with {made.generator}; as a page: {made.sample}.")
        parts.append("Nothing of it is bought again: the same command without --sample goes on from it.")
    else:
        parts.append(f"{made.rows:,} {made.kind} of {made.spec}{words} with {made.generator} in {made.out}.")
        if made.highest_similarity is not None:
            parts.append(f"Highest similarity of two documents: {made.highest_similarity:.2f}.")
        if made.findings is not None:
            parts.append(made.findings.sentence)
        parts.append(f"Read {made.out}/card.md and {made.out}/{SAMPLE_FILE}.")
    return Group(*parts)
