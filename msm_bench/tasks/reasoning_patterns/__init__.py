"""The reasoning-patterns task: how well a labeller finds the patterns in texts whose labels are known."""

from msm_bench.tasks.reasoning_patterns.reasoning_patterns import reasoning_patterns

__all__ = ["reasoning_patterns"]
