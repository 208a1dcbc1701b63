"""Where a decode step of our engine spends its time on a GPU: by graph and without, and its kernels."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch


def profile_decode(runner: Any, prompts: Sequence[Sequence[int]], rollouts: int) -> dict[str, Any]:
    """Milliseconds of a forward pass and of drawing its tokens, and the kernels of one pass.

    Args:
        runner: A `SharedRunner` that nobody else uses meanwhile.
        prompts: Tokens of the prompts.
        rollouts: Rows a prompt.
    """
    from msm_bench.engine.rows import Row
    from msm_bench.engine.sampling import Sampling, next_tokens

    rows = [
        Row(tuple(prompt), Sampling(temperature=0.7, max_tokens=256, key=bytes([index] * 16)), Future())
        for prompt in prompts
        for index in range(rollouts)
    ]
    runner.reset(lower=False)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    admitted = runner.admit(rows)
    torch.cuda.synchronize()
    found: dict[str, Any] = {"rows": admitted, "prefill_ms": 1e3 * (time.perf_counter() - begun)}

    def step() -> torch.Tensor:
        logits: torch.Tensor = runner.step()
        for row in runner.rows:
            row.tokens.append(7)
        return logits

    found["first_step_ms"] = _milliseconds(step, 1)
    found["step_ms"] = _milliseconds(step, 50)
    logits = step()
    live = runner.rows
    found["draw_ms"] = _milliseconds(
        lambda: next_tokens(logits, [r.sampling for r in live], [r.noise for r in live], [r.counts for r in live]), 10
    )
    found["kernels"] = _kernels(step)
    decoder, runner.decoder = runner.decoder, None
    found["graphs"] = decoder is not None
    step()
    found["step_without_graph_ms"] = _milliseconds(step, 5)
    runner.decoder = decoder
    runner.reset(lower=False)
    return found


def _milliseconds(work: Callable[[], object], times: int) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begun) / times


def _kernels(step: Callable[[], object], times: int = 3) -> list[list[Any]]:
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        for _ in range(times):
            step()
        torch.cuda.synchronize()
    events = sorted(watched.key_averages(), key=lambda event: -event.device_time_total)
    return [[event.key[:70], event.count // times, round(event.device_time_total / times / 1e3, 4)] for event in events[:25]]
