"""What the checks found, and the one function that stops a run on it."""

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from msm_bench.errors import WorkError

if TYPE_CHECKING:
    from rich.console import Group

CheckName = Literal[
    "row", "repeat", "near-duplicate", "name", "placeholder", "leftover", "entity", "passage", "probe", "held-out domain"
]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)

Severity = Literal["stop", "shout"]

_SHOWN = 5  # rows of each check that the printed report lists


class Problem(BaseModel):
    """One finding in one row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: CheckName
    severity: Severity
    """`stop`: no run goes on with it. `shout`: a person should look at it."""
    row: str
    """The row's id; the file's name where a row has none."""
    line: int = Field(ge=1)
    """Line in the file (or place in the iterable), from 1."""
    where: str
    """Which text of the row: "text", "messages[1]", "messages[1].reasoning"."""
    start: int | None = None
    """Character offsets of the finding in that text; absent where the whole row is meant."""
    end: int | None = None
    found: str
    """The offending words."""
    reason: str
    """What is wrong with them, without a full stop."""


class Report(BaseModel):
    """All findings about one corpus. `rich.print(report)` shows them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rows: int = Field(ge=0)
    words: int = Field(ge=0)
    checks: tuple[CheckName, ...]
    """The checks that ran."""
    problems: tuple[Problem, ...] = ()

    @property
    def stops(self) -> tuple[Problem, ...]:
        """The problems that must stop a run."""
        return tuple(problem for problem in self.problems if problem.severity == "stop")

    @property
    def shouts(self) -> tuple[Problem, ...]:
        """The problems that a person should look at."""
        return tuple(problem for problem in self.problems if problem.severity == "shout")

    def counts(self) -> dict[tuple[CheckName, Severity], int]:
        """Number of problems by check and severity."""
        return dict(Counter((problem.check, problem.severity) for problem in self.problems))

    def rows_with(self, check: CheckName) -> list[str]:
        """Ids of the rows in which a check found something, in file order, each once."""
        return list(dict.fromkeys(problem.row for problem in self.problems if problem.check == check))

    def __rich__(self) -> "Group":
        from rich.console import Group
        from rich.markup import escape
        from rich.table import Table
        from rich.text import Text

        head = f"{self.source}: {self.rows:,} rows, {self.words:,} words"
        if not self.problems:
            return Group(Text(f"{head}, no problem in {len(self.checks)} checks"))
        table = Table("Check", "Row", "Found", "Why")
        counts = self.counts()
        shown: Counter[tuple[CheckName, Severity]] = Counter()
        for problem in sorted(self.problems, key=lambda p: (p.severity == "shout", CHECKS.index(p.check), p.line)):
            key = (problem.check, problem.severity)
            shown[key] += 1
            if shown[key] > _SHOWN:
                continue
            place = problem.where if problem.start is None else f"{problem.where} {problem.start}-{problem.end}"
            cells = [f"{problem.row}\nline {problem.line}, {place}", problem.found, problem.reason]
            table.add_row(f"{problem.check}\n{problem.severity}", *(escape(cell) for cell in cells))
            if shown[key] == _SHOWN < counts[key]:
                table.add_row(f"{problem.check}\n{problem.severity}", f"and {counts[key] - _SHOWN} more", "", "")
        return Group(Text(f"{head}, {len(self.stops)} problems that stop, {len(self.shouts)} to look at"), table)


def require_clean(report: Report, *, waived: Collection[CheckName] = ()) -> None:
    """Lets a clean report pass; `shout` problems pass too.

    Args:
        report: What `check_rows` or `check_corpus` gave.
        waived: Checks whose `stop` problems are let through, each named by its user.

    Raises:
        WorkError: a `stop` problem is left; names the checks, how many rows each concerns, and the first of them.
    """
    stops = [problem for problem in report.stops if problem.check not in waived]
    if not stops:
        return
    by_check = Counter(problem.check for problem in stops)
    first = min(stops, key=lambda problem: problem.line)
    counted = ", ".join(f"{check} ({count})" for check, count in by_check.most_common())
    problem = (
        f"{report.source} is not fit to train on: {len(stops)} problems, {counted}. "
        f"The first is row '{first.row}' (line {first.line}, {first.where}): {first.reason}: '{first.found}'."
    )
    raise WorkError(problem, "Take these rows out or mend them, or waive the check by its name if they are meant.")
