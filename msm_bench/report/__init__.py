"""Logs and manifests -> one folder of pages, tables and figures. A pure function of them and of a small file of choices.

from msm_bench.report import report, render
render(report(["logs/cheese-laptop"], Path("report"), against="published:llama-3.1-8b"))

<out>/
  index.html            the whole report in one file, with no script and nothing from a network
  report.md             the same in Markdown
  results.csv .parquet  every estimate; contrasts.csv .parquet every contrast
  figures/*.svg *.png   every figure, and its Vega-Lite description (*.json), which any Vega editor opens
  transcripts/*.html    a page a condition, the arms side by side
  report.json           what the report was made from (logs by hash) and the hash of every file in it
"""

from msm_bench.report.build import Report, render, report
from msm_bench.report.choices import Choices, load_choices

__all__ = ["Choices", "Report", "load_choices", "render", "report"]
