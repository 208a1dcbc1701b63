"""Inspect's door to the `msm/` provider; torch is imported only when a model is asked for."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="msm")
def msm() -> type[ModelAPI]:
    """Models of this suite, run in this process: `--model msm/NAME`."""
    from msm_bench.engine.provider import MsmAPI

    return MsmAPI
