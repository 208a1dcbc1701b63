"""The agentic-misalignment task."""

from msm_bench.tasks.agentic_misalignment.agentic_misalignment import agentic_misalignment

__all__ = ["agentic_misalignment"]
