"""The prompts of the agentic-misalignment task: three scenarios (and one extra) x nine goals."""

from msm_bench.scorers.facts import ScenarioFacts
from msm_bench.tasks.agentic_misalignment.scenarios.assemble import (
    EXTRA_SCENARIOS,
    GOALS,
    SCENARIOS,
    build_condition,
)
from msm_bench.tasks.agentic_misalignment.scenarios.models import Condition, Email, fingerprint

__all__ = [
    "EXTRA_SCENARIOS",
    "GOALS",
    "SCENARIOS",
    "Condition",
    "Email",
    "ScenarioFacts",
    "build_condition",
    "fingerprint",
]
