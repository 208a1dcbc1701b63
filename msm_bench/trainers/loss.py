"""The loss of next tokens in pieces, so that the logits of a whole row never exist at once.

8,192 tokens over 152k words are 5 GB of float32 logits and as much again for their gradient. Here the logits of a piece give
its loss and at once the gradient of its hidden states, and are dropped; tokens without loss are left out. Nothing is computed
twice. The last layer must be frozen: it gets no gradient.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import CausalLMOutputWithPast

from msm_bench.trainers.contract import IGNORED

PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Model types whose logits are the last layer's product with the last hidden states and nothing else."""
_PIECE = {"cuda": 1024}
_PIECE_ELSEWHERE = 128
"""Tokens whose logits exist at once: enough to keep a GPU busy; few enough for a CPU's cache."""


def loss_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of logits [n, words] for targets [n] in float32, and its gradient in the logits' dtype."""
    full = logits.float()
    normal = full.logsumexp(-1, keepdim=True)
    right = full.gather(-1, targets[:, None])
    loss = (normal - right).sum()
    gradient = (full - normal).exp().to(logits.dtype)
    # Written, not subtracted from the rounded value: 1 - p would be lost in bfloat16 where p is near 1.
    return loss, gradient.scatter(-1, targets[:, None], ((right - normal).exp() - 1).to(logits.dtype))


class _PiecewiseLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, places: Tensor, compiled: bool) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        work = _compiled_loss() if compiled else loss_and_gradient
        gradient = torch.zeros_like(hidden) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for piece in torch.split(places, _PIECE.get(hidden.device.type, _PIECE_ELSEWHERE)):
            if not len(piece):
                continue
            loss, logits_gradient = work(hidden[piece] @ weight.t(), targets[piece])
            total += loss
            if gradient is not None:
                gradient.index_copy_(0, piece, logits_gradient @ weight)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype), None, None, None, None


@functools.cache
def _compiled_loss() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(loss_and_gradient)


def places_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """For labels of each token itself [rows, tokens]: the token after each place [rows * tokens], and the places with loss."""
    targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).reshape(-1)
    return targets, (targets != IGNORED).nonzero().squeeze(-1)


def piecewise_loss(hidden: Tensor, weight: Tensor, targets: Tensor, places: Tensor, compiled: bool = False) -> Tensor:
    """Sum of the next tokens' cross-entropy, in float32.

    Args:
        hidden: Last hidden states [rows, tokens, width].
        weight: The last layer's frozen weights [words, width].
        targets: From `places_of`.
        places: Likewise.
        compiled: Join the elementwise work with torch.compile.
    """
    flat = hidden.reshape(-1, hidden.shape[-1]).to(weight.dtype)
    apply: Any = _PiecewiseLoss.apply
    total: Tensor = apply(flat, weight, targets, places, compiled)
    return total


def divisible(model: Any) -> bool:
    """Whether a causal language model's loss can be taken in pieces: a plain, frozen last layer."""
    head = model.get_output_embeddings()
    return (
        model.config.model_type in PLAIN_HEADS
        and type(head) is nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )


@contextmanager
def loss_in_pieces(model: Any, compiled: bool = False) -> Iterator[None]:
    """Inside the context a forward pass of the model with labels gives the loss alone, computed in pieces.

    Args:
        model: transformers' model itself, without peft's wrapper; `divisible`.
        compiled: As in `piecewise_loss`.
    """
    plain = model.forward
    head = model.get_output_embeddings()
    product = head.forward

    def in_pieces(hidden: Tensor, targets: Tensor | None = None, places: Tensor | None = None) -> Tensor:
        if targets is None or places is None:
            logits: Tensor = product(hidden)
            return logits
        return piecewise_loss(hidden, head.weight, targets, places, compiled)

    def forward(labels: Tensor | None = None, num_items_in_batch: Tensor | int | None = None, **inputs: Any) -> Any:
        if labels is None:
            return plain(**inputs)
        inputs = {name: value for name, value in inputs.items() if value is not None}
        # Counting makes the host wait for the device, which has nothing queued yet before the layers.
        targets, places = places_of(labels)
        hidden = model.model(**inputs).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            # Through the layer's own call: under FSDP2 its weights are whole inside of that alone.
            total = head(hidden, targets, places)
        shared = max(len(places), 1) if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithPast(loss=total / shared)

    model.forward, head.forward = forward, in_pieces
    try:
        yield
    finally:
        del model.forward, head.forward
