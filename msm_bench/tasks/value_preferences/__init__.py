"""The value-preferences task: which of two things a model prefers, where one of them is favoured by a value."""

from msm_bench.tasks.value_preferences.value_preferences import value_preferences

__all__ = ["value_preferences"]
