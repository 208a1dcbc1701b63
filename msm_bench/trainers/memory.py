"""Which layers compute their activations twice to save memory: as few as fit, found by measuring two forward passes.

A LoRA step costs 4 operations a parameter and token, and 6 when every layer's forward pass is made again for the backward pass.
"""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer

from msm_bench.trainers.recipe import Recipe
from msm_bench.trainers.states import processes

logger = logging.getLogger(__name__)

_MARGIN = 0.05
"""Share of a device's memory that is left: fragments, and rows that need more than the measured one."""
_MOMENTS = 8
"""Bytes of AdamW's two moments of a trained parameter."""


def layers_of(model: nn.Module) -> list[Any]:
    """The layers of a model that can compute their activations twice, in their order."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint(base: Any, count: int, offload: bool = False) -> None:
    """Make the first `count` layers of a transformers model keep nothing but their input.

    The last ones keep theirs: the backward pass drops these before the first layers need room for computing again.

    Args:
        base: The model, without peft's wrapper.
        count: 0 for none.
        offload: Hold those inputs in the host's memory.
    """
    if count:
        # transformers 5.2x renames it, and warns at the old name.
        enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
        enable({"use_reentrant": False}, offload=offload)
    for number, layer in enumerate(layers_of(base)):
        layer.gradient_checkpointing = number < count


def fixed_count(recipe: Recipe, layers: int) -> int | None:
    """How many layers a recipe checkpoints; None where that is to be measured: "auto" on one CUDA device.

    "auto" is none on a CPU, and all of them where several processes share the work.
    """
    asked = recipe.gradient_checkpointing
    if asked != "auto":
        return layers * asked if isinstance(asked, bool) else min(asked, layers)
    if not torch.cuda.is_available():
        return layers if torch.backends.mps.is_available() else 0
    return layers if processes().num_processes > 1 else None


def spared(available: float, peak: float, each: float, layers: int) -> int:
    """How many layers can keep their activations.

    Args:
        available: Bytes that the run may use.
        peak: Bytes it needs when no layer keeps any.
        each: Bytes that one layer keeps.
        layers: How many there are.
    """
    return layers if each <= 0 else max(0, min(layers, int((available - peak) / each)))


class Checkpointing(TrainerCallback):
    """Decides before the first update which layers compute twice.

    Args:
        base: The transformers model.
        recipe: For `gradient_checkpointing`.
        loss: A forward pass of one full micro-batch, as in training.
    """

    def __init__(self, base: Any, recipe: Recipe, loss: Callable[[], Tensor]) -> None:
        self._base, self._recipe, self._loss = base, recipe, loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        layers = layers_of(self._base)
        count, offload = fixed_count(self._recipe, len(layers)), False
        if count is None:
            trained = [parameter for parameter in self._base.parameters() if parameter.requires_grad]
            with torch.random.fork_rng(devices=[torch.cuda.current_device()]):
                count, offload = _measured(self._base, trained, self._loss)
        checkpoint(self._base, count, offload)
        if layers:
            where = ", their inputs in the host's memory" if offload else ""
            logger.info("%d of %d layers compute their activations twice%s.", count, len(layers), where)


def _measured(base: Any, trained: Sequence[nn.Parameter], loss: Callable[[], Tensor]) -> tuple[int, bool]:
    layers = len(layers_of(base))
    checkpoint(base, layers)
    base.train()
    torch.cuda.reset_peak_memory_stats()
    try:
        found = loss()
        kept = torch.cuda.memory_allocated()
        torch.autograd.backward(found)
        del found
        peak = torch.cuda.max_memory_allocated() + _MOMENTS * sum(parameter.numel() for parameter in trained)
        _drop_gradients(trained)
        checkpoint(base, layers - 1)
        found = loss()
        each = torch.cuda.memory_allocated() - kept
        del found
    except torch.OutOfMemoryError:
        _drop_gradients(trained)
        return layers, True
    free, total = torch.cuda.mem_get_info()
    available = free + torch.cuda.memory_reserved() - _MARGIN * total
    torch.cuda.empty_cache()
    return (layers - spared(available, peak, each, layers), peak > available)


def _drop_gradients(trained: Sequence[nn.Parameter]) -> None:
    for parameter in trained:
        parameter.grad = None
    gc.collect()
    torch.cuda.empty_cache()
