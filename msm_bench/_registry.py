"""Inspect's entry point: the names that `msm_bench/...` and `msm/...` lead to. Imports only."""

from msm_bench.engine.registration import msm
from msm_bench.scorers.misalignment import misalignment
from msm_bench.scorers.patterns.agreement import pattern_agreement
from msm_bench.scorers.patterns.free_reasons import free_reasons
from msm_bench.scorers.preference import preference
from msm_bench.scorers.reasoning_patterns import reasoning_patterns as reasoning_patterns_scorer
from msm_bench.scorers.rubric import spec_rating
from msm_bench.tasks.agentic_misalignment import agentic_misalignment
from msm_bench.tasks.reasoning_patterns import reasoning_patterns
from msm_bench.tasks.spec_qa import spec_qa
from msm_bench.tasks.value_preferences import value_preferences

__all__ = [
    "agentic_misalignment",
    "free_reasons",
    "misalignment",
    "msm",
    "pattern_agreement",
    "preference",
    "reasoning_patterns",
    "reasoning_patterns_scorer",
    "spec_qa",
    "spec_rating",
    "value_preferences",
]
