"""LoRA layers with fewer passes over memory than peft's own: the product itself adds the adapter's part to the layer's output.

peft computes `W x`, then `B A x`, scales it and adds it: six passes over tensors of the output's size, and as the adapter's
weights are float32 it first copies the input to float32. Here the second product is accumulated onto the first, forwards and in
the gradient of the input, and only the input and the narrow `A x` are kept for the backward pass. The adapter's weights are
cast to the layer's dtype and their gradients come back in float32, as under autocast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@torch.library.custom_op("msm_bench::linear_plus", mutates_args=())
def _linear_plus(x: Tensor, weight: Tensor, bias: Tensor | None, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`x @ weight.T + bias + scale * left @ right`, [n, out]; one operator, so that a compiler does not take it apart."""
    out = torch.nn.functional.linear(x, weight, bias)
    return out.addmm_(left, right, alpha=scale)


@_linear_plus.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, left: Tensor, right: Tensor, scale: float) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class _LoraProduct(torch.autograd.Function):
    """x [n, in], weight [out, in], bias [out] or None, a [rank, in], b [out, rank], of one dtype; weight and bias frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        narrow = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, narrow)
        ctx.scale = scale
        found: Tensor = _linear_plus(x, weight, bias, narrow, b.t(), scale)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, narrow = ctx.saved_tensors
        grad_narrow = (grad @ b) * ctx.scale
        grad_x = _linear_plus(grad, weight.t(), None, grad_narrow, a, 1.0) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_narrow.t() @ x, (grad.t() @ narrow) * ctx.scale, None


class _FusedLinear(PeftLinear):
    """A peft layer with the forward pass of this module; what it does not cover goes to peft's."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or args or kwargs:
            return super().forward(x, *args, **kwargs)
        layer: Any = self.base_layer
        name = self.active_adapters[0]
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else layer.weight.dtype
        adapter: list[Any] = [self.lora_A[name], self.lora_B[name]]
        a, b, weight = (each.weight.to(dtype) for each in (*adapter, layer))
        bias = None if layer.bias is None else layer.bias.to(dtype)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        apply: Any = _LoraProduct.apply
        out: Tensor = apply(flat, weight, bias, a, b, float(self.scaling[name]))
        return out.view(*x.shape[:-1], -1)


def fusable(module: nn.Module) -> bool:
    """Whether a module is a plain LoRA layer: one adapter, no dropout, no bias of its own, no variant, over a frozen
    `nn.Linear` in floating point."""
    if type(module) is not PeftLinear or type(module.base_layer) is not nn.Linear:
        return False
    names = list(module.active_adapters)
    if len(names) != 1 or names[0] not in module.lora_A or names[0] in module.lora_variant:
        return False
    name = names[0]
    return (
        isinstance(module.lora_dropout[name], nn.Identity)
        and module.lora_B[name].bias is None
        and module.base_layer.weight.is_floating_point()
        and not module.base_layer.weight.requires_grad
    )


@contextmanager
def fused_lora(model: nn.Module) -> Iterator[int]:
    """Every fusable layer of a peft model computes by this module inside the context; yields how many there are.

    The layers change their class and nothing else: names, weights and what is saved stay.
    """
    layers = [module for module in model.modules() if fusable(module)]
    for layer in layers:
        layer.__class__ = _FusedLinear
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.__class__ = PeftLinear
