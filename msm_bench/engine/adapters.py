"""Several LoRA adapters on one loaded base: each token takes the one of its row.

An adapter's updates are kept apart from the weights rather than merged: merging rounds the sum to the weights' dtype, which in
bfloat16 can swallow much of a small update, and merged weights could serve one adapter only. PEFT reads the configuration and
says which layers it means, on a copy of the model without weights, so that the running model is not touched meanwhile.

All tokens of a forward pass stand in one row [1, T], those of one adapter as a list of places in it; which places, the active
`Route` of the thread says.
"""

import json
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from msm_bench.errors import CorruptWeightsError, NotAModelError

# For each adapter in the pass: its number, and the places of its tokens, None for all of them.
Route = Sequence[tuple[int, Tensor | None]]

_active = threading.local()


@dataclass(frozen=True)
class Update:
    """The change of one linear layer: down [r, in], up [out, r] with its factor in it."""

    down: Tensor
    up: Tensor


@contextmanager
def routed(route: Route) -> Iterator[None]:
    """This thread's forward passes use these adapters."""
    _active.route = route
    try:
        yield
    finally:
        _active.route = ()


def route_of(adapters: Sequence[int], widths: Sequence[int], device: torch.device) -> Route:
    """The route of sequences that lie one after another, adapter 0 being none."""
    present = set(adapters)
    if present <= {0}:
        return ()
    if len(present) == 1:
        return [(adapters[0], None)]
    places: dict[int, list[int]] = {}
    begin = 0
    for adapter, width in zip(adapters, widths, strict=True):
        if adapter:
            places.setdefault(adapter, []).extend(range(begin, begin + width))
        begin += width
    return [(adapter, torch.tensor(where, device=device)) for adapter, where in places.items()]


def read_adapter(folder: str, config: Any) -> dict[str, Update] | None:
    """The updates of an adapter by the name of their layer, in float32; None for kinds that need PEFT's own layers.

    Args:
        folder: Of the adapter.
        config: Of the base model.

    Raises:
        NotAModelError: It is for another kind of model, or a prompt rather than weights.
        CorruptWeightsError: It does not fit the base or is not whole.
    """
    from peft import PeftConfig, get_peft_model
    from peft.tuners.lora import Linear, LoraLayer

    given = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    if given.get("peft_type") != "LORA" or given.get("use_dora") or given.get("modules_to_save"):
        return None
    if given.get("bias", "none") != "none" or given.get("layer_replication") or given.get("trainable_token_indices"):
        return None
    if given.get("task_type") not in (None, "CAUSAL_LM"):
        raise NotAModelError(
            f"The adapter '{folder}' is for {given['task_type']}.", "Give an adapter of a causal language model."
        )
    misfit = "Check base_model_name_or_path in its adapter_config.json, and copy it again."
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            skeleton: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
            wrapped = get_peft_model(skeleton, PeftConfig.from_pretrained(folder))
        stored = load_file(Path(folder) / "adapter_model.safetensors")
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error).strip().splitlines()[0].rstrip(".:")
        raise CorruptWeightsError(f"The adapter '{folder}' cannot be put on its base: {problem}.", misfit) from error
    updates: dict[str, Update] = {}
    for name, layer in wrapped.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        if type(layer) is not Linear or type(layer.get_base_layer()) is not nn.Linear:
            return None
        down, up = (stored.pop(f"{name}.lora_{side}.weight", None) for side in "AB")
        if down is None or up is None:
            raise CorruptWeightsError(
                f"The adapter '{folder}' lacks tensors that its own adapter_config.json asks for.", "Copy it again."
            )
        base, rank = layer.get_base_layer(), layer.r["default"]
        if down.shape != (rank, base.in_features) or up.shape != (base.out_features, rank):
            found = f"{tuple(down.shape)} and {tuple(up.shape)} for a layer from {base.in_features} to {base.out_features}"
            raise CorruptWeightsError(f"The adapter '{folder}' cannot be put on its base: it has {found}.", misfit)
        plain = name.removeprefix("base_model.model.")
        updates[plain] = Update(down.float(), up.float() * layer.scaling["default"])
    return None if stored else updates


class Adapters:
    """The adapters of one running model; its methods are called from the thread that runs it.

    Args:
        model: The base, as it runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers: dict[str, dict[int, Update]] = {}
        self._last = 0

    def add(self, updates: dict[str, Update]) -> int:
        """Put an adapter on the model; its number, from 1."""
        self._last += 1
        for name, update in updates.items():
            module: Any = self._model.get_submodule(name)
            if name not in self._layers:
                self._layers[name] = {}
                module.forward = _updated(module.forward, self._layers[name])
            weight = module.weight
            self._layers[name][self._last] = Update(update.down.to(weight), update.up.to(weight))
        return self._last

    def remove(self, number: int) -> None:
        """Let an adapter's memory go."""
        for held in self._layers.values():
            held.pop(number, None)


def _updated(plain: Callable[[Tensor], Tensor], held: dict[int, Update]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        found = plain(x)
        for number, places in getattr(_active, "route", ()):
            update = held.get(number)
            if update is None:
                continue
            if places is None:
                found[0].addmm_(x[0] @ update.down.T, update.up.T)
            else:
                where = places.to(x.device)
                found[0].index_add_(0, where, x[0].index_select(0, where) @ update.down.T @ update.up.T)
        return found

    return forward
