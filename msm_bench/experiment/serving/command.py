"""The command line of vLLM's server."""

import json
from collections.abc import Sequence
from typing import Any

from msm_bench.checkpoints import ResolvedModel
from msm_bench.errors import RequestError
from msm_bench.experiment.serving.adapters import Adapter
from msm_bench.experiment.serving.settings import Serving

HOST = "127.0.0.1"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM has kernels for."""


def serve_command(
    python: str, base: ResolvedModel, name: str, adapters: Sequence[Adapter], serving: Serving, port: int, templates: bool
) -> list[str]:
    """The command that serves a base and its adapters.

    Args:
        python: That has vLLM.
        base: Full weights.
        name: The base's on the server.
        adapters: Each under its own name.
        serving: `args` stand behind what is set here, and win over it where that is not fixed.
        port: On this machine alone.
        templates: Whether requests may bring a chat template.

    Raises:
        RequestError: an adapter's rank is beyond what vLLM serves.
    """
    args: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "served_model_name": name,
        # As with msm/ models: what a task does not set is neutral, whatever the model's generation_config.json says.
        "generation_config": "vllm",
        # Opens /v1/chat/completions/render, from which the sampling parameters are read back.
        "enable_scale_out": True,
        "trust_request_chat_template": templates,
    }
    if adapters:
        rank = max(adapter.rank for adapter in adapters)
        if rank > _RANKS[-1]:
            raise RequestError(f"vLLM serves adapters up to rank {_RANKS[-1]}, and one has {rank}.", "Leave out 'serve'.")
        fitting = next(each for each in _RANKS if each >= rank)
        args |= {"enable_lora": True, "max_lora_rank": fitting, "max_cpu_loras": len(adapters)}
    args |= serving.args
    # And not `vllm serve`, which ends at once in the CPU build: that is a distribution of another name.
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", base.path]
    for key, value in args.items():
        if value is not None and value is not False:
            command += [f"--{key.replace('_', '-')}", *([] if value is True else [_text(value)])]
    if adapters:
        modules = [{"name": each.name, "path": str(each.folder), "base_model_name": name} for each in adapters]
        command += ["--lora-modules", *(json.dumps(module) for module in modules)]
    return command


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
