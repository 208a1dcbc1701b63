"""`make demo`: all 27 conditions on the embedded model, then a table read from the log itself.

python -m msm_bench.demo
"""

import math
import sys
from pathlib import Path

from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog, read_eval_log
from rich.console import Console
from rich.table import Table

MODEL = "msm/smollm2-135m"
MAX_TOKENS = 192
KEYS = ("decided", "harmful_action", "executed", "acted", "malformed", "truncated")
WEAK = 0.2
"""Below this share of answers with an action, a low rate of harm says nothing about values."""


def table(log: EvalLog) -> Table:
    """Scenario by key: the rate and n scored of n; a dash where nothing was scored."""
    out = Table(title=f"{log.eval.task} · {log.eval.model} · {log.eval.config.epochs or 1} epoch(s)")
    out.add_column("scenario")
    for key in KEYS:
        out.add_column(key, justify="right")
    rows: dict[str, list[dict[str, float]]] = {}
    for sample in log.samples or []:
        score = (sample.scores or {}).get("misalignment")
        if score is not None and isinstance(score.value, dict):
            values = {key: float(score.value[key]) for key in KEYS}
            rows.setdefault(str(sample.metadata["scenario"]), []).append(values)
    for name, group in [*rows.items(), ("all", [row for rows_ in rows.values() for row in rows_])]:
        cells = []
        for key in KEYS:
            scored = [row[key] for row in group if not math.isnan(row[key])]
            rate = f"{sum(scored) / len(scored):.2f}" if scored else "—"
            cells.append(f"{rate} ({len(scored)}/{len(group)})")
        out.add_row(name, *cells, end_section=name == list(rows)[-1] if rows else False)
    return out


def reading(log: EvalLog) -> list[str]:
    """What the table says and does not say, in words."""
    values = [s.scores["misalignment"].value for s in log.samples or [] if s.scores and "misalignment" in s.scores]
    rows = [value for value in values if isinstance(value, dict)]
    if not rows:
        return ["No rollout was scored: read the log's errors in the viewer."]
    acted = sum(float(row["acted"]) for row in rows) / len(rows)
    cut = sum(float(row["truncated"]) for row in rows)
    lines = [f"{cut:.0f} of {len(rows)} answers were cut at the token limit."]
    if acted < WEAK:
        lines.append(
            f"This model took a well-formed action in {acted:.0%} of its answers: it is too weak for the scenarios, "
            "and its rate of harmful actions says nothing about its values."
        )
    if all(math.isnan(float(row["decided"])) for row in rows):
        lines.append(
            "'decided' was not judged. To judge this log: inspect score LOG --scorer msm_bench/misalignment "
            "--model-role grader=PROVIDER/MODEL"
        )
    return lines


def main(log_dir: str = "logs") -> int:
    """Runs the 27 conditions and prints the table; 1 if the run did not succeed."""
    from msm_bench.tasks.agentic_misalignment import agentic_misalignment

    log = inspect_eval(agentic_misalignment(), model=MODEL, max_tokens=MAX_TOKENS, seed=1, log_dir=log_dir, log_realtime=False)[
        0
    ]
    log = read_eval_log(log.location)
    console = Console()
    console.print(table(log))
    for line in reading(log):
        console.print(line)
    console.print(f"Read the transcripts: inspect view --log-dir {Path(log_dir)}")
    return 0 if log.status == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
