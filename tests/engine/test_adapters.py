"""Several adapters of one base at once: each answers as PEFT's own model does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from msm_bench.checkpoints import resolve
from msm_bench.engine.engine import Engine, acquire, release
from msm_bench.engine.sampling import Sampling
from msm_bench.engine.settings import Settings

PROMPT = list(range(20, 170))


def make_adapter(base: Path, folder: Path, seed: int, **changes: Any) -> Path:
    given = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**given))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


def greedy(model: Any, count: int) -> list[int]:
    tokens = torch.tensor([PROMPT])
    output = model.generate(input_ids=tokens, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return output[0, len(PROMPT) :].tolist()


def test_adapters_and_base_in_one_batch(
    engine_of: Callable[..., Engine],
    plain: Callable[..., Any],
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ranks, scales and targets differ; one prompt, so that keys and values must be kept apart."""
    folders = [
        make_adapter(model_folder(), tmp_path / "one", 1),
        make_adapter(model_folder(), tmp_path / "two", 2, r=6, use_rslora=True, rank_pattern={"q_proj": 2}),
        make_adapter(model_folder(), tmp_path / "three", 3, target_modules=["v_proj", "down_proj"]),
    ]
    engines = [engine_of(), *(engine_of(folder=folder) for folder in folders)]
    runner: Any = engines[0]._runner
    assert all(engine._runner is runner for engine in engines)
    mixed: set[int] = set()
    step = runner.step

    def watched() -> torch.Tensor:
        mixed.add(len({row.adapter for row in runner.rows}))
        return step()

    monkeypatch.setattr(runner, "step", watched)
    asked = [engine.generate(PROMPT, Sampling(temperature=0, max_tokens=20)) for _ in range(2) for engine in engines]
    found = [list(future.result(timeout=60).tokens) for future in asked]
    expected = [greedy(plain(), 20), *(greedy(PeftModel.from_pretrained(plain(), folder).eval(), 20) for folder in folders)]
    assert found == expected * 2
    assert max(mixed) == 4
    assert len({tuple(tokens) for tokens in expected}) == 4


def test_scores_of_several_adapters(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [make_adapter(model_folder(), tmp_path / name, seed) for seed, name in enumerate(["one", "two"])]
    engines = [engine_of(folder=folder) for folder in folders]
    answer = [31, 7, 99, 12]
    asked = [engine.score(PROMPT, [answer]) for engine in engines for _ in range(3)]
    for index, folder in enumerate(folders):
        model = PeftModel.from_pretrained(plain(), folder).eval()
        with torch.no_grad():
            logprobs = model(torch.tensor([PROMPT + answer])).logits[0].log_softmax(-1)
        expected = [logprobs[len(PROMPT) - 1 + at, token].item() for at, token in enumerate(answer)]
        for future in asked[3 * index : 3 * index + 3]:
            assert future.result(timeout=60)[0].token_logprobs == pytest.approx(expected, abs=1e-4)


def test_an_adapter_comes_and_goes_while_the_base_runs(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_adapter(model_folder(), tmp_path / "one", 1)
    base = engine_of()
    running = base.generate(PROMPT, Sampling(temperature=0, max_tokens=150))
    engine = acquire(resolve(str(folder)), Settings(dtype="float32", device="cpu"))
    assert list(engine.generate(PROMPT, Sampling(temperature=0, max_tokens=5)).result(timeout=60).tokens) == greedy(
        PeftModel.from_pretrained(plain(), folder).eval(), 5
    )
    release(engine)
    assert list(running.result(timeout=60).tokens) == greedy(plain(), 150)
    assert list(base.generate(PROMPT, Sampling(temperature=0, max_tokens=5)).result(timeout=60).tokens) == greedy(plain(), 5)


def test_adapter_of_another_kind_gets_a_model_of_its_own(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_adapter(model_folder(), tmp_path / "dora", 1, use_dora=True)
    base, engine = engine_of(), engine_of(folder=folder)
    assert engine._runner is not base._runner
    expected = greedy(PeftModel.from_pretrained(plain(), folder).eval(), 12)
    assert list(engine.generate(PROMPT, Sampling(temperature=0, max_tokens=12)).result(timeout=60).tokens) == expected
