"""Builds an instruction mix from public data sets: the paper's Table 2, or any other that a YAML file describes.

    build_hub_mix(out, model_name="Qwen", provider_name="Alibaba", tokenizer="Qwen/Qwen2.5-7B-Instruct")

Records are streamed in a seeded order. One is kept if it is a chat with an answer, is short enough, was not kept before, has
no problem that stops (`msm_bench.corpus.checks`) and, with a grader, does not conflict with the spec. What has been looked at
is written beside the place of the mix at once, so that a run that was stopped goes on where it was; the mix itself is
whole or absent.
"""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import (
    Manifest,
    canonical_json,
    refuse_existing,
    seal,
    sha256_of_value,
    write_text_atomically,
    writing_folder,
)
from msm_bench.corpus.checks import CheckName, check_rows
from msm_bench.corpus.mix.conflict import ENOUGH_FAILURES, ConflictFilter
from msm_bench.corpus.mix.reading import SourceReader
from msm_bench.corpus.mix.sources import MixSource, MixSources, messages_of, read_sources, rows_by_source
from msm_bench.corpus.ready import look_over
from msm_bench.corpus.rows import CHATS_FILE, ChatRow, Message, write_chats
from msm_bench.errors import RequestError, WorkError

_CHECKS: tuple[CheckName, ...] = ("row", "name", "leftover", "entity", "passage", "probe")
_BATCH = 32
SOURCES_FILE = "sources.json"
VERDICTS_FILE = "verdicts.jsonl"


class SourceCount(BaseModel):
    """What became of one data set's records (`sources.json` of a mix)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    repository: str
    config: str | None
    split: str
    revision: str
    licence: str
    wanted: int
    kept: int
    examined: int
    rejected: dict[str, int]
    """Reason to number of records."""


class _Examined(BaseModel):
    """One line of a work file: a record that was looked at, with its row if it was kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str | None
    row: ChatRow | None = None


def build_hub_mix(
    out: Path,
    sources_file: Path | None = None,
    *,
    model_name: str,
    provider_name: str,
    rows: int | None = None,
    tokenizer: str | Path | None = None,
    conflict: ConflictFilter | None = None,
    local: Mapping[str, Path] | None = None,
    seed: int = 0,
) -> Manifest:
    """Builds a mix at `out`: `chats.jsonl`, `sources.json` (counts, licences), `checks.json`; with a grader `verdicts.jsonl`.

    Args:
        out: The folder to be made.
        sources_file: The mix; without one the paper's Table 2.
        model_name: The model that will be trained; chats that name another are left out.
        provider_name: Its maker.
        rows: Rows in all, shared out in the proportions of the mix; the mix's own number by default.
        tokenizer: Name or folder of a tokenizer to measure length with. Without one a third of the UTF-8 bytes is taken for
            the number of tokens, which for English is more than there are.
        conflict: The grader's filter; without one no chat is judged.
        local: Repository, or "repository/config", to a local copy.
        seed: Of the order in which records are taken.

    Raises:
        RequestError: something stands at `out`, the mix does not fit, or an unfinished run there had other settings.
        DownloadError: a data set cannot be read; the same call goes on later.
        WorkError: a data set has too few fitting rows, its columns are others, or the grader keeps failing.
    """
    import anyio

    mix = read_sources(sources_file)
    refuse_existing(out)
    wanted = rows_by_source(mix, rows)
    readers = {source.name: SourceReader(source, local or {}, seed) for source in mix.sources}
    settings: dict[str, Any] = {
        "mix": mix.model_dump(mode="json"),
        "rows": wanted,
        "revisions": {name: reader.revision for name, reader in readers.items()},
        "model_name": model_name,
        "provider_name": provider_name,
        "tokenizer": str(tokenizer) if tokenizer is not None else None,
        "grader": str(conflict.grader) if conflict else None,
        "conflict_prompt_sha256": conflict.prompt_sha256 if conflict else None,
    }
    work = _open_work(out, settings | {"seed": seed})
    if conflict:
        conflict.open_store(work / VERDICTS_FILE)
    length = _length(tokenizer)
    seen: set[str] = set()
    counts: list[SourceCount] = []
    chats: list[ChatRow] = []
    for source in mix.sources:
        shelf = _Shelf(work / f"{source.name}.jsonl", seen)

        def reject(row: ChatRow) -> str | None:
            return _reason(row, length, mix.most_tokens, model_name, provider_name)

        anyio.run(_fill, shelf, source, mix, readers[source.name], wanted[source.name], reject, conflict)
        counts.append(_count(source, readers[source.name].revision, wanted[source.name], shelf))
        chats += shelf.rows
    random.Random(seed).shuffle(chats)
    with writing_folder(out) as folder:
        write_chats(folder / CHATS_FILE, chats)
        listed = json.dumps([count.model_dump() for count in counts], indent=2, ensure_ascii=False)
        (folder / SOURCES_FILE).write_text(listed + "\n", encoding="utf-8")
        if conflict and (work / VERDICTS_FILE).is_file():
            shutil.copy(work / VERDICTS_FILE, folder / VERDICTS_FILE)
        checks = (*_CHECKS, "near-duplicate")
        findings = look_over(folder, chats, model_name=model_name, provider_name=provider_name, checks=checks, seed=seed)
        settings["findings"] = findings.model_dump()
        manifest = seal(folder, "instruction-mix", settings=settings, seed=seed, packages=("datasets", "transformers"))
    shutil.rmtree(work)
    return manifest


class _Shelf:
    """The records of one source that have been looked at, in a file that grows line by line."""

    def __init__(self, file: Path, seen: set[str]) -> None:
        self._file, self.seen = file, seen
        self.reasons: Counter[str] = Counter()
        self.rows: list[ChatRow] = []
        self.examined = 0
        content = file.read_bytes() if file.is_file() else b""
        # A line without its end was being written when the run was stopped.
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            file.write_bytes(whole)
        for line in whole.split(b"\n"):
            if line:
                self._count(_Examined.model_validate_json(line))

    def add(self, entries: Sequence[_Examined]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(entry.model_dump_json(exclude_none=False) + "\n" for entry in entries)
            file.flush()
        for entry in entries:
            self._count(entry)

    def _count(self, entry: _Examined) -> None:
        self.examined += 1
        if entry.row is not None:
            self.rows.append(entry.row)
            self.seen.add(entry.row.sha256)
        else:
            self.reasons[entry.reason or "unknown"] += 1


async def _fill(
    shelf: _Shelf,
    source: MixSource,
    mix: MixSources,
    reader: SourceReader,
    wanted: int,
    reject: Callable[[ChatRow], str | None],
    conflict: ConflictFilter | None,
) -> None:
    if len(shelf.rows) >= wanted:
        return
    failed = 0
    for batch in _batches(reader.records(skip=shelf.examined), lambda: wanted - len(shelf.rows)):
        entries: list[_Examined] = []
        candidates: dict[int, ChatRow] = {}
        for number, record in batch:
            row = _row(source, mix, reader.revision, number, record)
            reason = "not a chat with an answer" if row is None else None
            if row is not None:
                repeated = row.sha256 in shelf.seen or any(row.sha256 == other.sha256 for other in candidates.values())
                reason = "repeated" if repeated else reject(row)
                if reason is None:
                    candidates[len(entries)] = row
            entries.append(_Examined(reason=reason, row=row if reason is None else None))
        if conflict and candidates:
            for place, verdict in zip(candidates, await conflict.judge(list(candidates.values())), strict=True):
                failed = 0 if verdict.verdict else failed + 1
                if verdict.verdict != "keep":
                    entries[place] = _Examined(reason="conflict" if verdict.verdict else "not judged")
            if failed >= ENOUGH_FAILURES:
                problem = f"The grader failed {failed} times in a row ({verdict.answer[:120]})."
                raise WorkError(problem, "Mend its key or its name and run the same again; what it judged is kept.")
        shelf.add(entries)
        if len(shelf.rows) >= wanted:
            return
    raise WorkError(
        f"'{source.title}' ({source.repository}) has only {len(shelf.rows)} fitting rows of the {wanted} wanted, "
        f"after {shelf.examined} records.",
        "Ask for fewer rows, or lower that source's number in a sources file of your own.",
    )


def _batches(
    records: Iterator[tuple[int, dict[str, Any]]], missing: Callable[[], int]
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    batch: list[tuple[int, dict[str, Any]]] = []
    for record in records:
        batch.append(record)
        # Never more than are missing, so that no verdict is bought for a row that will not be taken.
        if len(batch) >= min(_BATCH, missing()):
            yield batch
            batch = []
    if batch:
        yield batch


def _row(source: MixSource, mix: MixSources, revision: str, number: int, record: dict[str, Any]) -> ChatRow | None:
    messages = messages_of(source, record)
    if messages is None:
        return None
    part = ", ".join(filter(None, (source.config, source.split)))
    return ChatRow.of(
        messages,
        id=f"{mix.name}/{source.name}/{number:07d}",
        domain=source.title,
        subdomain=source.config or source.repository,
        kind="multi-turn" if sum(message.role == "user" for message in messages) > 1 else "instruction",
        idea=f"Record {number} of {source.repository} ({part}) at {revision}, licence {source.licence}.",
        generator=f"hub/{source.repository}",
    )


def _reason(
    row: ChatRow, length: Callable[[Sequence[Message]], int], most_tokens: int, model_name: str, provider_name: str
) -> str | None:
    if length(row.messages) > most_tokens:
        return "too long"
    report = check_rows([row], model_name=model_name, provider_name=provider_name, checks=_CHECKS)
    return f"check: {report.stops[0].check}" if report.stops else None


def _length(tokenizer: str | Path | None) -> Callable[[Sequence[Message]], int]:
    if tokenizer is None:
        return lambda messages: sum(len(message.content.encode("utf-8")) for message in messages) // 3
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(tokenizer))
    except (OSError, ValueError) as error:
        raise RequestError(f"There is no tokenizer '{tokenizer}'.", "Name a hub id or a folder with a tokenizer.") from error
    # Roles and turn marks add a few tokens each, whatever the template.
    return lambda messages: sum(len(loaded(message.content)["input_ids"]) + 8 for message in messages)


def _count(source: MixSource, revision: str, wanted: int, shelf: _Shelf) -> SourceCount:
    return SourceCount(
        name=source.name,
        title=source.title,
        repository=source.repository,
        config=source.config,
        split=source.split,
        revision=revision,
        licence=source.licence,
        wanted=wanted,
        kept=len(shelf.rows),
        examined=shelf.examined,
        rejected=dict(sorted(shelf.reasons.items())),
    )


def _open_work(out: Path, settings: dict[str, Any]) -> Path:
    out = out.expanduser().absolute()
    work = out.parent / f".{out.name}.work"
    work.mkdir(parents=True, exist_ok=True)
    plain = json.loads(canonical_json(settings))
    file = work / "settings.json"
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if sha256_of_value(before) != sha256_of_value(plain):
            differing = ", ".join(sorted(key for key in plain if plain[key] != before.get(key)))
            raise RequestError(
                f"An unfinished mix at '{work}' was begun with other settings ({differing}).",
                "Use the same settings to finish it, or remove that folder to begin anew.",
            )
    else:
        write_text_atomically(file, canonical_json(plain) + "\n")
    return work
