"""The fast ways to compute what a recipe asks for: each gives the losses of the plain way. See docs/training-speed.md."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.utils.import_utils import is_liger_kernel_available

from msm_bench.errors import RequestError
from msm_bench.trainers.lora import fused_lora
from msm_bench.trainers.loss import divisible, loss_in_pieces
from msm_bench.trainers.memory import layers_of
from msm_bench.trainers.recipe import Recipe
from msm_bench.trainers.states import processes

_LIGER = {"rope": True, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False}


def kernels_of(recipe: Recipe) -> str:
    """ "plain", "compile" or "liger": what a recipe's `kernels` means on this machine."""
    if recipe.kernels != "auto":
        return recipe.kernels
    return "compile" if torch.cuda.is_available() and recipe.packing and processes().num_processes == 1 else "plain"


def row_length(recipe: Recipe) -> int | None:
    """The length that rows are padded to: what is compiled is compiled for one length; None for the longest of each batch."""
    return recipe.max_tokens if recipe.packing and kernels_of(recipe) == "compile" else None


@contextmanager
def fast_paths(model: Any, recipe: Recipe) -> Iterator[None]:
    """Inside the context a peft model computes as fast as the recipe lets it.

    What cannot be sped up (another kind of adapter, a last layer that does more than a product) is left as it is.

    Raises:
        RequestError: Liger's kernels are asked for and not installed.
    """
    how = kernels_of(recipe)
    if how == "liger" and not is_liger_kernel_available():
        raise RequestError("liger-kernel is not installed.", "Install it, or use --set kernels=compile.")
    base = model.get_base_model()
    with ExitStack() as stack:
        if recipe.fused_lora:
            stack.enter_context(fused_lora(model))
        if recipe.loss_in_pieces and divisible(base):
            stack.enter_context(loss_in_pieces(base, compiled=how != "plain" and torch.cuda.is_available()))
        if how == "liger":
            from transformers.integrations import liger

            apply: Any = liger.apply_liger_kernel
            apply(model, _LIGER)
        elif how == "compile":
            stack.enter_context(_compiled(base))
        yield


@contextmanager
def _compiled(base: Any) -> Iterator[None]:
    """Every layer compiled by itself: the first one's code serves all of them."""
    layers = layers_of(base)
    for layer in layers:
        layer.compile()
    # The first layer's input would be the only one without a gradient, and would have the layer compiled once more.
    hook = base.get_input_embeddings().register_forward_hook(_wants_gradient)
    try:
        yield
    finally:
        hook.remove()
        for layer in layers:
            layer._compiled_call_impl = None


def _wants_gradient(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_(True) if torch.is_grad_enabled() else output
