"""What `kernels` does on CUDA, in plain torch for CPUs: the same numbers with fewer passes over memory.

A forward pass of a thousand tokens reads and writes megabytes for every small operation, and a CPU waits for each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, rounded as transformers does."""
    wide = x.float()
    scale = torch.rsqrt(torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.shape[-1] + eps)
    return torch.mul(wide, scale).to(x.dtype).mul_(weight)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return F.silu(gate).mul_(up)


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary position encoding of q [1, H, T, D] and k [1, K, T, D] with cos and sin [1, T, D].

    The results lie in memory token by token, as attention wants them.
    """
    return _rotated(q, cos, sin), _rotated(k, cos, sin)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    x, cos, sin = x.transpose(1, 2), cos[:, :, None], sin[:, :, None]
    found = x * cos
    found[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    found[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return found.transpose(1, 2)
