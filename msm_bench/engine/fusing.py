"""Fewer, larger operations in the layers of a loaded model; its weights stay where its modules look for them.

Projections of the same input become one product, whose weight the modules' own weights are views of. Only what is known to be
equal is touched: plain linear layers, an MLP of the form down(silu(gate) * up). On a CPU a second, packed copy of the weights
serves the products of a decode step, where it is up to twice as fast. Norms, the gate and the rotary encoding become one kernel
each with Triton, and fewer passes over memory on a CPU. `engine` compares logits before and after.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msm_bench.engine import elementwise
from msm_bench.engine.memory import free_bytes

logger = logging.getLogger(__name__)

# Rows of a product for which oneDNN with packed weights was faster than plain sgemm (fp32, AVX512): 1.2 to 2 times between
# 8 and 128 rows, slower below, even above.
_PACKED_FROM, _PACKED_TO, _PACKED_FOR = 8, 192, 32


def kernels_for(device: torch.device) -> ModuleType | None:
    """The Triton kernels, None where they do not run."""
    if device.type != "cuda":
        return None
    try:
        from msm_bench.engine import kernels
    except ImportError:
        logger.warning("Triton is not installed; decoding is slower without it.")
        return None
    return kernels


def fuse(model: nn.Module) -> None:
    """Fuse the projections of all layers, in place."""
    pack = _may_pack(model)
    for module in model.modules():
        names = dict(module.named_children())
        for together in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
            parts = [names.get(name) for name in together]
            if _joinable(parts):
                _Joined([part for part in parts if isinstance(part, nn.Linear)], pack)
        if pack and _joinable([module]) and "forward" not in vars(module):
            module.forward = product(module.weight, module.bias, pack)  # type: ignore[arg-type]


def use_kernels(model: nn.Module, kernels: ModuleType) -> Callable[[], None]:
    """Let kernels compute norms and gates; returns what takes them out again."""
    changed: list[nn.Module] = []

    def undo() -> None:
        for module in changed:
            vars(module).pop("forward", None)

    try:
        for module in model.modules():
            names = dict(module.named_children())
            if set(names) == {"gate_proj", "up_proj", "down_proj", "act_fn"} and _is_silu(names["act_fn"]):
                module.forward = _gated_mlp(names["gate_proj"], names["up_proj"], names["down_proj"], kernels)
                changed.append(module)
            elif _faster_norm(module, kernels):
                changed.append(module)
    except BaseException:
        undo()
        raise
    return undo


def use_elementwise(model: nn.Module) -> ModuleType | None:
    """Let `elementwise` compute norms and gates; returns the kernels for `fast_rotation`, None where it is the model's own."""
    use_kernels(model, elementwise)
    return elementwise if _rotates_alike(model, elementwise) else None


def _may_pack(model: nn.Module) -> bool:
    """Whether a second copy of the weights is worth its memory: on a CPU, where it takes little of what is free."""
    parameters = list(model.parameters())
    device, dtype = parameters[0].device, parameters[0].dtype
    has_mkldnn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if device.type != "cpu" or not has_mkldnn or dtype == torch.float16:
        return False
    return 4 * sum(parameter.nbytes for parameter in parameters) < free_bytes(device)


def product(weight: Tensor, bias: Tensor | None, pack: bool) -> Callable[[Tensor], Tensor]:
    """x @ weight.T + bias, with the weight packed for oneDNN as well."""
    if not pack:
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _PACKED_FOR)

    def forward(x: Tensor) -> Tensor:
        if _PACKED_FROM <= x.shape[:-1].numel() <= _PACKED_TO:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
            return found
        return F.linear(x, weight, bias)

    return forward


def _joinable(parts: Sequence[nn.Module | None]) -> bool:
    """Whether these are plain linear layers of one input."""
    linears = [part for part in parts if type(part) is nn.Linear and not hasattr(part, "_hf_hook")]
    return len(linears) == len(parts) and len({(part.in_features, part.bias is None) for part in linears}) == 1


def _is_silu(activation: nn.Module) -> bool:
    return type(activation) is nn.SiLU or type(activation).__name__ == "SiLUActivation"


def _as_one(parts: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """One weight and bias, of which the parts' own are views from now on."""
    whole: list[Tensor | None] = []
    for name in ("weight", "bias"):
        own = [getattr(part, name) for part in parts]
        if own[0] is None:
            whole.append(None)
            continue
        joined = torch.cat([tensor.detach() for tensor in own])
        for tensor, view in zip(own, torch.split(joined, [len(tensor) for tensor in own]), strict=True):
            tensor.data = view
        whole.append(joined)
    assert whole[0] is not None
    return whole[0], whole[1]


class _Joined:
    """Projections of one input: the first computes all, the others hand out their part."""

    def __init__(self, parts: Sequence[nn.Linear], pack: bool) -> None:
        self._product = product(*_as_one(parts), pack)
        self._sizes = [part.out_features for part in parts]
        self._input: Tensor | None = None
        self._found: tuple[Tensor, ...] = ()
        for index, part in enumerate(parts):
            part.forward = self._part(index, part)  # type: ignore[method-assign,assignment]

    def _part(self, index: int, part: nn.Linear) -> Callable[[Tensor], Tensor]:
        last = len(self._sizes) - 1

        def forward(x: Tensor) -> Tensor:
            if index == 0:
                self._input, self._found = x, torch.split(self._product(x), self._sizes, -1)
            if x is not self._input:
                return F.linear(x, part.weight, part.bias)
            found = self._found[index]
            if index == last:
                self._input, self._found = None, ()
            return found

        return forward


def _gated_mlp(gate: nn.Module, up: nn.Module, down: nn.Module, kernels: ModuleType) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        found: Tensor = down(kernels.gated(gate(x), up(x)))
        return found

    return forward


@torch.inference_mode()
def _faster_norm(module: nn.Module, kernels: ModuleType) -> bool:
    """Put the kernel into a root-mean-square norm that is the plain one (some multiply by 1 + weight); whether it is."""
    weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or not isinstance(eps, float):
        return False
    sample = torch.linspace(-3, 5, 2 * weight.numel(), device=weight.device, dtype=weight.dtype).view(2, -1)
    if weight.dim() != 1 or not torch.allclose(module(sample), kernels.rms_norm(sample, weight, eps), rtol=0.02, atol=0.02):
        return False
    module.forward = lambda x: kernels.rms_norm(x, weight, eps)
    return True


@torch.inference_mode()
def _rotates_alike(model: nn.Module, kernels: ModuleType) -> bool:
    """Whether a model's rotary encoding turns a head's halves against each other, as the kernel does; some turn neighbours."""
    plain = getattr(sys.modules[type(model).__module__], "apply_rotary_pos_emb", None)
    device = next(model.parameters()).device
    q, k, cos, sin = (torch.linspace(start, start + 3, 24, device=device) for start in (-1, -2, 0, 1))
    q, k, cos, sin = q.view(1, 1, 3, 8), k.view(1, 1, 3, 8), cos.view(1, 3, 8), sin.view(1, 3, 8)
    try:
        expected = plain(q, k, cos, sin) if plain is not None else ()
    except (TypeError, ValueError, RuntimeError):  # of another form
        return False
    return len(expected) == 2 and all(map(torch.allclose, expected, kernels.rotate(q, k, cos, sin)))


@contextmanager
def fast_rotation(model: nn.Module, kernels: ModuleType | None) -> Iterator[None]:
    """Within this block the model's rotary encoding is one kernel, for this thread's inference; its own without kernels."""
    module: Any = sys.modules[type(model).__module__]
    plain = getattr(module, "apply_rotary_pos_emb", None)
    if plain is None or kernels is None:
        yield
        return

    def rotation(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any) -> Any:
        usual = not more and not named and cos.shape == (1, q.shape[2], q.shape[3]) and q.stride(3) == k.stride(3) == 1
        if not usual or not torch.is_inference_mode_enabled() or q.dtype != k.dtype:
            return plain(q, k, cos, sin, *more, **named)
        return kernels.rotate(q, k, cos, sin)

    module.apply_rotary_pos_emb = rotation
    try:
        yield
    finally:
        module.apply_rotary_pos_emb = plain
