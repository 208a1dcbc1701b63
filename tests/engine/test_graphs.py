"""Decoding through tables and Triton kernels equals decoding without.

On a card (`--rungpu`) with captured graphs; elsewhere with Triton's interpreter, where Triton is installed and
TRITON_INTERPRET=1 is set.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from msm_bench.engine.attention import ATTENTION_NAME
from msm_bench.engine.fusing import fuse
from msm_bench.engine.rows import Row
from msm_bench.engine.sampling import Sampling
from msm_bench.engine.shared import SharedRunner

pytest.importorskip("triton")
gpu = torch.cuda.is_available()
if not gpu and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a card or TRITON_INTERPRET=1", allow_module_level=True)


def some_tokens(length: int, seed: int) -> list[int]:
    return torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def answers(runner: SharedRunner, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy answers; the last prompts come in after two steps, and rows end one after another."""
    rows = [Row(tuple(p), Sampling(temperature=0, max_tokens=3 + i), Future()) for i, p in enumerate(prompts)]
    waiting, later, steps = rows[:5], rows[5:], 0
    while waiting or later or runner.rows:
        if waiting:
            del waiting[: runner.admit(waiting)]
        for row, logits in zip(runner.rows, runner.step(), strict=True):
            if not row.ended:
                row.tokens.append(int(logits.argmax()))
                row.ended = len(row.tokens) >= row.sampling.max_tokens
        runner.settle(bool(waiting))
        steps += 1
        if steps == 2:
            waiting, later = later, []
    return [row.tokens for row in rows]


@pytest.mark.gpu if gpu else pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_equals_decoding_without_graphs(model_folder: Callable[..., Path], architecture: str) -> None:
    from msm_bench.engine import kernels

    common = some_tokens(530, 1)
    prompts = [common] * 3 + [common + some_tokens(80, 2)] * 2
    prompts += [common[:300] + some_tokens(90, 3), some_tokens(3, 4), some_tokens(1, 5)]
    model: Any = AutoModelForCausalLM.from_pretrained(model_folder(architecture), dtype=torch.float32)
    model.to("cuda" if gpu else "cpu").eval().set_attn_implementation(ATTENTION_NAME)
    expected = answers(SharedRunner(model, 2048, 64, 10**9, 1024), prompts)
    fuse(model)
    runner = SharedRunner(model, 2048, 64, 10**9, 1024)
    runner.use_graphs(kernels, capture=gpu)
    assert runner.decoder is not None
    assert answers(runner, prompts) == expected
