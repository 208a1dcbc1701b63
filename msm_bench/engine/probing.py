"""Fixed tokens for checks of a loaded model, and the plan that finds out what its layers store."""

import torch
from torch import Tensor, nn

from msm_bench.engine.attention import Level, partial_attention, widen_heads
from msm_bench.engine.plans import LayerShape

_COUNT = 12


def probe_tokens(model: nn.Module) -> Tensor:
    """Some fixed tokens [1, n] spread over the vocabulary."""
    rows: int = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    device = next(model.parameters()).device
    return (torch.arange(1, _COUNT + 1, device=device) * 7919 % rows)[None]


class ProbePlan:
    """Plain causal attention that notes what each layer would store."""

    def __init__(self) -> None:
        self.levels: list[Level] = []
        self.shapes: dict[int, LayerShape] = {}
        self.heads = 0

    def local(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Plan.local`."""
        self.heads = q.shape[1]
        self.shapes[layer] = LayerShape(k.shape[1], k.shape[2], v.shape[2], k.dtype, k.device)
        wide = [widen_heads(x.transpose(0, 1)[None], q.shape[1]) for x in (q, k, v)]
        out, lse = partial_attention(wide[0], wide[1], wide[2], scale, causal=True)
        return out[0].transpose(0, 1).float(), lse[0].transpose(0, 1).float()
