"""The embedded model, for real: its answers equal plain transformers', with and without a shared prefix."""

from typing import Any

import pytest
import torch
from inspect_ai.model import ChatMessageUser
from transformers import AutoModelForCausalLM

from msm_bench.checkpoints import EMBEDDED_NAME, resolve
from msm_bench.engine.engine import acquire, release
from msm_bench.engine.messages import Chat
from msm_bench.engine.sampling import Sampling
from msm_bench.engine.settings import Settings

pytestmark = pytest.mark.slow


def test_embedded_model() -> None:
    resolved = resolve(EMBEDDED_NAME)
    engine = acquire(resolved, Settings(dtype="float32", device="cpu"))
    chat = Chat(engine.loaded.tokenizer, None, None, EMBEDDED_NAME)
    prompts = [
        list(chat.prompt([ChatMessageUser(content=f"{'Here is some text. ' * 60} What is {name}?")]).ids)
        for name in ("the sky", "a tree", "the sky")
    ]
    asked = [engine.generate(prompt, Sampling(temperature=0, max_tokens=16)) for prompt in prompts]
    found = [future.result() for future in asked]
    answer = chat.tokens("It is blue.")
    scored = engine.score(prompts[0], [answer]).result()[0]
    release(engine)
    plain: Any = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32)
    for prompt, generation in zip(prompts, found, strict=True):
        expected = plain.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
        assert list(generation.tokens) == expected
    assert found[2].cached > 150
    with torch.no_grad():
        logprobs = plain(torch.tensor([prompts[0] + answer])).logits[0].log_softmax(-1)
    expected = [logprobs[len(prompts[0]) - 1 + at, token].item() for at, token in enumerate(answer)]
    assert scored.token_logprobs == pytest.approx(expected, abs=1e-3)
