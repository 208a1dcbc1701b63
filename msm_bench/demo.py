"""`make demo`: the paper's central effect on the embedded model, from specs to report.

    python -m msm_bench.demo [EXPERIMENT]

Runs a shipped experiment (`cheese-laptop`), prints its estimates and contrasts, and writes the report. Stopped at any moment,
the same command goes on.
"""

import os
import sys
import time
from pathlib import Path

from rich.console import Console

from msm_bench.analysis.compare import compare
from msm_bench.analysis.render import render_comparison
from msm_bench.experiment import running
from msm_bench.experiment.settings import load_experiment
from msm_bench.report import report

EXPERIMENT = "cheese-laptop"


def main(name: str = EXPERIMENT, runs: Path = Path("runs"), logs: Path = Path("logs")) -> int:
    """Runs the experiment, prints what it found, writes the report; 1 if a cell failed or the run was stopped."""
    console = Console()
    begun = time.monotonic()
    wanted = load_experiment(name)
    # Two cells side by side with half of the threads each get more out of a small machine than one after the other.
    on = f"local:{2 if (os.cpu_count() or 1) > 1 else 1}"
    outcome = running.run(wanted, runs, logs, on=on, say=lambda line: console.print(line, markup=False, highlight=False))
    console.print(running.render(outcome, wanted.name), markup=False, highlight=False)
    if outcome.failed or outcome.stopped:
        return 1
    folder, out = logs / wanted.name, runs / wanted.name / "report"
    console.print(render_comparison(compare(folder)))
    report(folder, out)
    console.print(f"{(time.monotonic() - begun) / 60:.1f} minutes. The report: {out / 'index.html'}", highlight=False)
    console.print(f"The transcripts: inspect view --log-dir {folder}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else EXPERIMENT))
