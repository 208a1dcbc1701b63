"""Checks of a corpus before it trains anything.

report = check_corpus(folder, model_name="Qwen", provider_name="Alibaba")
rich.print(report)
require_clean(report)            # raises where a problem must stop a run
"""

from msm_bench.corpus.checks.entities import Entities, evaluation_entities
from msm_bench.corpus.checks.report import CHECKS, CheckName, Problem, Report, require_clean
from msm_bench.corpus.checks.run import check_corpus, check_rows

__all__ = [
    "CHECKS",
    "CheckName",
    "Entities",
    "Problem",
    "Report",
    "check_corpus",
    "check_rows",
    "evaluation_entities",
    "require_clean",
]
