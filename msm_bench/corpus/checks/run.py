"""Runs the checks over rows, or over the files of a corpus folder."""

import json
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from msm_bench.corpus.checks.duplicates import NEAR_DUPLICATE, DuplicateScan
from msm_bench.corpus.checks.entities import Entities, evaluation_entities
from msm_bench.corpus.checks.leakage import LeakageScan, values_of_specs
from msm_bench.corpus.checks.leftovers import blank, leftovers, placeholders
from msm_bench.corpus.checks.names import NameScan
from msm_bench.corpus.checks.pieces import Piece, pieces_of
from msm_bench.corpus.checks.report import CHECKS, CheckName, Problem, Report
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE, ChatRow, DocumentRow
from msm_bench.errors import RequestError, UnknownNameError


def check_rows(
    rows: Iterable[DocumentRow | ChatRow],
    *,
    model_name: str,
    provider_name: str,
    source: str = "rows",
    checks: Collection[CheckName] = CHECKS,
    entities: Entities | None = None,
    near_duplicate: float = NEAR_DUPLICATE,
    allowed_names: Iterable[str] = (),
) -> Report:
    """Checks rows in memory.

    Args:
        rows: Documents or chats; a row's place counts as its line.
        model_name: The model that the corpus will train, as the corpus calls it ("Qwen").
        provider_name: That model's maker ("Alibaba").
        source: What to call the rows in the report.
        checks: The checks to run; all by default.
        entities: What belongs to evaluations; the shipped ones' by default.
        near_duplicate: Character-shingle similarity from which two rows count as near-duplicates.
        allowed_names: Names of other models or makers that may occur.

    Raises:
        UnknownNameError: `checks` names a check that does not exist.
    """
    checker = _Checker(model_name, provider_name, checks, entities, near_duplicate, allowed_names)
    for line, row in enumerate(rows, start=1):
        checker.read(row, line)
    return checker.report(source)


def check_corpus(
    folder: Path,
    *,
    model_name: str,
    provider_name: str,
    checks: Collection[CheckName] = CHECKS,
    entities: Entities | None = None,
    near_duplicate: float = NEAR_DUPLICATE,
    allowed_names: Iterable[str] = (),
) -> Report:
    """Checks the files of a corpus folder (`documents.jsonl`, `chats.jsonl`), or one such file.

    A line that is no row is a problem of the report, not an error. Rows of the two files are not compared with each other.
    Arguments as for `check_rows`.

    Raises:
        RequestError: there is no such file, or the folder holds neither.
        UnknownNameError: `checks` names a check that does not exist.
    """
    names = (DOCUMENTS_FILE, CHATS_FILE)
    files = [folder] if folder.is_file() else [folder / name for name in names if (folder / name).is_file()]
    if not files:
        raise RequestError(f"There is no corpus at '{folder}'.", f"Name a folder with {' or '.join(names)}.")
    reports = []
    for file in files:
        checker = _Checker(model_name, provider_name, checks, entities, near_duplicate, allowed_names)
        for line, content in enumerate(file.read_bytes().split(b"\n"), start=1):
            if content.strip():
                checker.read_line(content, line, file.name)
        reports.append(checker.report(file.name))
    return Report(
        source=str(folder),
        rows=sum(report.rows for report in reports),
        words=sum(report.words for report in reports),
        checks=reports[0].checks,
        problems=tuple(problem for report in reports for problem in report.problems),
    )


class _Checker:
    def __init__(
        self,
        model_name: str,
        provider_name: str,
        checks: Collection[CheckName],
        entities: Entities | None,
        near_duplicate: float,
        allowed_names: Iterable[str],
    ) -> None:
        if unknown := [check for check in checks if check not in CHECKS]:
            raise UnknownNameError("check", unknown[0], CHECKS)
        self._checks = tuple(check for check in CHECKS if check in checks)
        self._names = _name_scan(model_name, provider_name, tuple(allowed_names))
        leaks = {"entity", "passage", "probe", "held-out domain"} & set(checks)
        forbidden = entities if entities is not None or not leaks else evaluation_entities()
        self._leakage = _leakage_scan(forbidden) if forbidden is not None else None
        self._duplicates: DuplicateScan | None = None
        if {"repeat", "near-duplicate"} & set(checks):
            self._duplicates = DuplicateScan(near_duplicate)
        self._values = values_of_specs()
        self._first_line: dict[str, int] = {}
        self._problems: list[Problem] = []
        self._rows = self._words = 0

    def read(self, row: DocumentRow | ChatRow, line: int) -> None:
        pieces = pieces_of(row, line)
        self._rows += 1
        self._words += sum(len(piece.words) for piece in pieces)
        self._problems += [problem for problem in self._found(row, pieces, line) if problem.check in self._checks]

    def read_line(self, content: bytes, line: int, name: str) -> None:
        try:
            value = json.loads(content)
            row_type = ChatRow if isinstance(value, dict) and "messages" in value else DocumentRow
            self.read(row_type.model_validate(value), line)
        except (ValidationError, ValueError) as error:
            self._rows += 1
            row = value.get("id") if isinstance(error, ValidationError) and isinstance(value, dict) else None
            piece = Piece(str(row or name), line, "row", "document", "")
            if "row" in self._checks:
                self._problems.append(piece.problem("row", "stop", "is not a row", found=_first_problem(error)))

    def report(self, source: str) -> Report:
        return Report(source=source, rows=self._rows, words=self._words, checks=self._checks, problems=tuple(self._problems))

    def _found(self, row: DocumentRow | ChatRow, pieces: list[Piece], line: int) -> Iterator[Problem]:
        first = self._first_line.setdefault(row.id, line)
        if first != line:
            yield pieces[0].problem("row", "stop", f"the id stands already in line {first}", found=row.id)
        for piece in pieces:
            yield from blank(piece)
            yield from self._names.problems(piece)
            yield from placeholders(piece)
            yield from leftovers(piece)
            if self._leakage is not None:
                yield from self._leakage.entities(piece)
                yield from self._leakage.passages(piece)
        if self._leakage is not None:
            yield from self._leakage.probes(pieces)
            yield from self._leakage.domain(row, pieces, self._values)
        if self._duplicates is not None:
            yield from self._duplicates.problems(pieces, near="near-duplicate" in self._checks)


@lru_cache(maxsize=8)
def _name_scan(model_name: str, provider_name: str, allowed: tuple[str, ...]) -> NameScan:
    return NameScan(model_name, provider_name, allowed)


@lru_cache(maxsize=2)
def _leakage_scan(forbidden: Entities) -> LeakageScan:
    return LeakageScan(forbidden)


def _first_problem(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        return f"{place}: {detail['msg']}".removeprefix(": ")
    return str(error)
