"""Writes the finished folder of a corpus: rows, card, yields, what was rejected, a sample to read, findings of the checks."""

import json
from collections.abc import Sequence
from pathlib import Path

from msm_bench.artefacts import Manifest, seal, sha256_of_text, writing_folder
from msm_bench.corpus.pipeline.calling import Role
from msm_bench.corpus.pipeline.gate import Dropped
from msm_bench.corpus.pipeline.prices import Usage
from msm_bench.corpus.pipeline.report import StageYield, card, write_rejected, yields_of
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.corpus.pipeline.store import Store
from msm_bench.corpus.reading import SAMPLE_FILE, reading_sample, sample_html
from msm_bench.corpus.ready import Findings, look_over
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE, ChatRow, DocumentRow, write_chats, write_documents
from msm_bench.specs.loading import Spec

_OF_DOCUMENTS = {"voice", "critique", "words", "document_tokens", "types", "simple"}
_OF_CHATS = {"style", "reasoning", "questions_per_domain", "response_tokens"}


def write_corpus(
    out: Path,
    spec: Spec,
    settings: Settings,
    rows: list[DocumentRow] | list[ChatRow],
    store: Store,
    dropped: Sequence[Dropped],
    filtered: Sequence[str],
    models: dict[Role, str],
    subject: tuple[str, str],
    mirror: Path | None,
) -> tuple[Manifest, Findings]:
    """Writes a corpus folder, whole or not at all.

    Args:
        out: The folder.
        spec: The spec.
        settings: What was asked for.
        rows: The rows, at least one.
        store: The open work folder.
        dropped: Rows that the gate has dropped.
        filtered: Items of chats that the filter has dropped.
        models: Name of the model of each role.
        subject: The model and the maker that the rows may name.
        mirror: A corpus that this one is compared with.

    Raises:
        WorkError: the last look found what must stop a run.
    """
    yields = yields_of(store)
    usage = sum((stage.usage for stage in yields), Usage())
    cost: dict[str, float] = {"input_tokens": usage.prompt, "cached_tokens": usage.cache_read, "output_tokens": usage.output}
    if all(stage.dollars is not None for stage in yields):
        cost["dollars"] = round(sum(stage.dollars or 0.0 for stage in yields), 4)
    asked = settings.model_dump(exclude=_OF_CHATS if settings.kind == "documents" else _OF_DOCUMENTS)
    spec_hash = sha256_of_text(spec.text)
    documents = settings.kind == "documents"
    file = DOCUMENTS_FILE if documents else CHATS_FILE
    with writing_folder(out) as folder:
        if documents:
            write_documents(folder / file, [row for row in rows if isinstance(row, DocumentRow)])
        else:
            write_chats(folder / file, [row for row in rows if isinstance(row, ChatRow)])
        findings = look_over(folder, rows, model_name=subject[0], provider_name=subject[1], mirror=mirror, seed=settings.seed)
        facts = _facts(spec, settings, len(rows), models, asked, cost)
        text = card(rows, yields, findings, {**facts, "spec_sha256": spec_hash, "data_file": file})
        (folder / "card.md").write_text(text, encoding="utf-8")
        _write_stages(folder, yields)
        write_rejected(folder / "rejected.jsonl", store, filtered, dropped)
        page = sample_html(reading_sample(rows, seed=settings.seed), f"{spec.name}: a sample of {len(rows):,} {settings.kind}")
        (folder / SAMPLE_FILE).write_text(page, encoding="utf-8")
        manifest = seal(
            folder,
            settings.kind,
            parents={"spec": spec_hash},
            settings={
                **asked,
                "spec": spec.name,
                **{f"{role}": name for role, name in models.items()},
                "rows": len(rows),
                "findings": findings.model_dump(),
            },
            seed=settings.seed,
            packages=("inspect-ai", "anthropic", "openai"),
            cost=cost,
        )
    return manifest, findings


def _facts(
    spec: Spec, settings: Settings, rows: int, models: dict[Role, str], asked: dict[str, object], cost: dict[str, float]
) -> dict[str, object]:
    short = f"; {settings.n - rows:,} are missing because ideas ran out" if rows < settings.n else ""
    dollars = f"${cost['dollars']:,.2f}" if "dollars" in cost else "price not known"
    read = f"{cost['input_tokens']:,} tokens read ({cost['cached_tokens']:,} from the cache)"
    what = "documents for midtraining" if settings.kind == "documents" else f"chats for fine-tuning, style {settings.style}"
    return {
        "kind": settings.kind,
        "spec": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "what": what,
        "model_name": settings.model_name,
        "provider_name": settings.provider_name,
        "generator": models["generator"],
        "grader": models["grader"] if settings.kind == "chats" or settings.critique else "none",
        "wanted": f"{settings.n:,}",
        "short": short,
        "seed": settings.seed,
        "settings": ", ".join(f"{name} {value}" for name, value in asked.items() if name not in ("kind", "n", "seed")),
        "cost": f"{read}, {cost['output_tokens']:,} written; {dollars}",
    }


def _write_stages(folder: Path, yields: Sequence[StageYield]) -> None:
    stages = [stage.model_dump() for stage in yields]
    (folder / "yields.json").write_text(json.dumps(stages, indent=2) + "\n", encoding="utf-8")
