"""The operations for CPUs give what transformers' own give, and are used only where they do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from msm_bench.engine import elementwise
from msm_bench.engine.engine import Engine
from msm_bench.engine.sampling import Sampling


@given(st.integers(1, 40), st.sampled_from([8, 48, 576]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_norm(tokens: int, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(tokens)
    norm = LlamaRMSNorm(width, eps=1e-5).to(dtype)
    norm.weight.data.uniform_(-2, 2)
    x = (torch.randn(1, tokens, width) * 5).to(dtype)
    found, expected = elementwise.rms_norm(x, norm.weight.detach(), 1e-5), norm(x).detach()
    assert found.dtype is dtype
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5 if dtype is torch.float32 else 0.01)


@given(st.integers(1, 40), st.integers(1, 60))
def test_gate(tokens: int, inner: int) -> None:
    """Of two halves of one product, as the joined projections hand them out."""
    gate, up = torch.randn(1, tokens, 2 * inner).split(inner, -1)
    before = gate.clone(), up.clone()
    torch.testing.assert_close(elementwise.gated(gate, up), torch.nn.functional.silu(before[0]) * before[1])
    assert torch.equal(gate, before[0]) and torch.equal(up, before[1])


@given(st.integers(1, 30), st.sampled_from([(4, 4), (9, 3)]), st.sampled_from([2, 8, 64]))
def test_rotation(tokens: int, heads: tuple[int, int], width: int) -> None:
    q, k = (torch.randn(1, tokens, count, width).transpose(1, 2) for count in heads)
    cos, sin = torch.randn(2, 1, tokens, width)
    for found, expected in zip(elementwise.rotate(q, k, cos, sin), apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        assert found.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(("architecture", "halves"), [("qwen3", True), ("neighbours", False)])
def test_a_model_that_turns_neighbours_keeps_its_own_rotation(
    architecture: str, halves: bool, engine_of: Callable[..., Engine], plain: Callable[..., Any]
) -> None:
    engine, model = engine_of(architecture), plain(architecture)
    assert engine.kind == "shared"
    assert (engine._runner.rotation is not None) is halves  # type: ignore[attr-defined]
    prompt = list(range(5, 80))
    found = engine.generate(prompt, Sampling(temperature=0, max_tokens=12)).result(timeout=60)
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0, len(prompt) :]
    assert list(found.tokens) == expected.tolist()
