"""What an evaluation cannot be faster than: bytes over measured bandwidth, FLOPs over measured matrix rate.

Counted for a decoder with grouped key/value heads; a model that is none of these has no floor here.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Machine:
    """Measured rates: bytes a second of memory read, FLOPs a second of a large matrix product."""

    bandwidth: float
    flops: float
    dtype: str


@dataclass(frozen=True)
class Floor:
    """Seconds of the parts of the work, each the larger of its two limits; `bytes_a_step` is of an average decode step."""

    prefill: float
    decode: float
    bytes_a_step: float
    flops_a_step: float

    @property
    def seconds(self) -> float:
        """Of the whole work."""
        return self.prefill + self.decode


def measure(device: str, dtype: torch.dtype) -> Machine:
    """The machine's rates, best of several tries."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    flops = 2 * size**3 / _best(lambda: a @ b, device)
    source = torch.zeros(2**32 if device == "cuda" else 2**28, dtype=torch.uint8, device=device).view(torch.float32)
    if device == "cuda":  # a copy reads and writes at the rate at which a card reads; a sum there may be slower
        target = torch.empty_like(source)
        bandwidth = 2 * source.nbytes / _best(lambda: target.copy_(source), device)
    else:
        bandwidth = source.nbytes / _best(lambda: source.sum(), device)
    return Machine(bandwidth, flops, str(dtype).removeprefix("torch."))


def _best(work: Callable[[], object], device: str, tries: int = 8) -> float:
    best = float("inf")
    for _ in range(tries):
        _wait(device)
        begun = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def floor(
    config: Any, machine: Machine, prompts: Sequence[Sequence[int]], rollouts: int, new_tokens: int, shared: bool
) -> Floor:
    """The floor of sampling `rollouts` answers of `new_tokens` to each prompt, all rows decoding together.

    Args:
        config: The model's configuration.
        machine: Measured rates; weights and cache are counted in its dtype.
        prompts: Their tokens.
        rollouts: Answers a prompt.
        new_tokens: Tokens an answer.
        shared: What several rows have in common is computed, stored and read once; else once a row.
    """
    width = torch.finfo(getattr(torch, machine.dtype)).bits // 8
    layers, hidden, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or hidden // heads
    kv = config.num_key_value_heads * head
    matrices = layers * (2 * hidden * heads * head + 2 * hidden * kv + 3 * hidden * config.intermediate_size)
    output = hidden * config.vocab_size
    scores = 4 * layers * heads * head  # FLOPs for one query and one key
    copies = 1 if shared else rollouts
    lengths = [len(prompt) for prompt in prompts]
    fresh = _distinct(prompts) if shared else sum(lengths)
    prefill_flops = copies * (2 * matrices * fresh + scores * sum(length**2 for length in lengths) / 2)
    rows = rollouts * len(prompts)
    mean = new_tokens / 2
    seen = sum(rollouts * (length + mean) for length in lengths)
    step_flops = 2 * rows * (matrices + output) + scores * seen
    cached = copies * fresh + rows * mean
    step_bytes = width * (matrices + output + 2 * layers * kv * cached)
    return Floor(
        prefill=max(prefill_flops / machine.flops, width * matrices / machine.bandwidth),
        decode=new_tokens * max(step_bytes / machine.bandwidth, step_flops / machine.flops),
        bytes_a_step=step_bytes,
        flops_a_step=step_flops,
    )


def _distinct(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of the prompts with every common leading part counted once."""
    count, before = 0, list[int]()
    for prompt in sorted(list(prompt) for prompt in prompts):
        same = next(
            (at for at, (a, b) in enumerate(zip(before, prompt, strict=False)) if a != b), min(len(before), len(prompt))
        )
        count, before = count + len(prompt) - same, prompt
    return count


def as_json(found: Floor) -> dict[str, float]:
    """For the report."""
    return {**asdict(found), "seconds": found.seconds}
