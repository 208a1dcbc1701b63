"""Inspect's entry point: the names that `msm_bench/...` and `msm/...` lead to. Imports only."""

from msm_bench.engine.registration import msm
from msm_bench.scorers.misalignment import misalignment
from msm_bench.tasks.agentic_misalignment import agentic_misalignment

__all__ = ["agentic_misalignment", "misalignment", "msm"]
