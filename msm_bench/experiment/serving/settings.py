"""What an experiment's `serve:` says: `vllm`, or a mapping with some of the settings below."""

import os
import sys
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, field_validator, model_validator

from msm_bench.errors import MissingExtraError, RequestError

PYTHON_VARIABLE = "MSM_BENCH_VLLM_PYTHON"
_OURS = (
    *("model", "model_tag", "host", "port", "api_key", "served_model_name"),
    *("enable_lora", "lora_modules", "max_lora_rank", "trust_remote_code", "trust_request_chat_template"),
)
_DEVICES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


class Serving(BaseModel):
    """One server for a base model and all its adapters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["vllm"] = "vllm"
    python: str | None = None
    """The Python that has vLLM; without it MSM_BENCH_VLLM_PYTHON's, else this one. vLLM rarely fits into one environment with
    the newest transformers."""
    args: dict[str, Any] = {}
    """More arguments of `vllm serve`, with underscores: `{tensor_parallel_size: 2, max_model_len: 16384}`. True stands for a
    flag alone, False and null leave one out."""
    enable_thinking: bool | None = None
    """Passed to the chat template when given."""
    start_seconds: PositiveFloat = 1800
    """How long the server may take until it answers."""
    tolerance: PositiveFloat = 0.05
    """How far the server's losses of held-out rows may lie from the checkpoint's record, in nats a token (root mean square over
    the rows). The server's dtype is not the trainer's."""
    connections: PositiveInt = 256
    """Requests at a time; vLLM puts those that it has no room for into its queue."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"engine": given} if isinstance(given, str) else given

    @field_validator("args")
    @classmethod
    def _args_are_free(cls, args: dict[str, Any]) -> dict[str, Any]:
        args = {name.removeprefix("--").replace("-", "_"): value for name, value in args.items()}
        for name in args:
            if name in _OURS:
                raise ValueError(f"'{name}' is set by the run itself")
        return args

    @property
    def gpus(self) -> int:
        """GPUs that the server takes, for whoever schedules it."""
        return prod(int(self.args.get(name) or 1) for name in _DEVICES)

    def identity(self) -> dict[str, Any]:
        """What of this makes results other results."""
        return {"engine": self.engine, "args": self.args, "enable_thinking": self.enable_thinking}

    def find_python(self) -> str:
        """The Python that has vLLM.

        Raises:
            RequestError: the one that is named is not there.
            MissingExtraError: none is named, and this one has no vLLM.
        """
        named = self.python or os.environ.get(PYTHON_VARIABLE)
        if named:
            path = Path(named).expanduser()
            if not path.is_file():
                raise RequestError(
                    f"There is no Python '{named}' to run vLLM with.", f"Mend serve.python or {PYTHON_VARIABLE}."
                )
            return str(path.absolute())
        found = find_spec("vllm")
        if found is None or found.origin is None:  # a folder of that name is none
            raise MissingExtraError(
                "There is no vLLM in this environment.",
                f"Install it into one of its own and name that one's Python with serve.python or {PYTHON_VARIABLE}.",
            )
        return sys.executable
