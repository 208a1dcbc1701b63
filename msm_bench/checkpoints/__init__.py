"""From a model's name to weights, and the embedded model."""

from msm_bench.checkpoints.embedded import EMBEDDED_NAME, embedded_model
from msm_bench.checkpoints.resolving import ResolvedModel, resolve

__all__ = ["EMBEDDED_NAME", "ResolvedModel", "embedded_model", "resolve"]
