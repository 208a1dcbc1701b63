"""Adapters, damaged weights, and what is no model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from msm_bench.engine.engine import Engine
from msm_bench.engine.sampling import Sampling
from msm_bench.errors import CorruptWeightsError, NotAModelError

PROMPT = list(range(20, 110))


def make_adapter(base: Path, folder: Path, zero: bool = False) -> Path:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and not zero:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folder


def test_adapter_is_in_force(
    engine_of: Callable[..., Engine], plain: Callable[..., Any], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_adapter(model_folder(), tmp_path / "adapter")
    engine, base = engine_of(folder=folder), engine_of()
    reference = PeftModel.from_pretrained(plain(), folder).eval()
    expected = reference.generate(input_ids=torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False, pad_token_id=0)
    tokens = list(engine.generate(PROMPT, Sampling(temperature=0, max_tokens=20)).result().tokens)
    assert engine.kind == "shared" and tokens == expected[0, len(PROMPT) :].tolist()
    assert tokens != list(base.generate(PROMPT, Sampling(temperature=0, max_tokens=20)).result().tokens)
    with torch.no_grad():
        logprobs = reference(torch.tensor([PROMPT + tokens])).logits[0].log_softmax(-1)
    scored = engine.score(PROMPT, [tokens]).result()[0].token_logprobs
    assert scored == pytest.approx([logprobs[len(PROMPT) - 1 + at, t].item() for at, t in enumerate(tokens)], abs=1e-4)
    assert float(engine.loaded.identity["adapter_effect"]) > 0
    assert "base_sha256" in engine.loaded.identity and "adapter_effect" not in base.loaded.identity


def test_adapter_without_effect_is_told(
    engine_of: Callable[..., Engine],
    model_folder: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = engine_of(folder=make_adapter(model_folder(), tmp_path / "adapter", zero=True))
    assert engine.loaded.identity["adapter_effect"] == "0" and "changes nothing" in caplog.text


def test_adapter_of_another_model(engine_of: Callable[..., Engine], model_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_adapter(model_folder(), tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(model_folder("qwen3"))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptWeightsError, match=r"cannot be put on its base.*base_model_name_or_path"):
        engine_of(folder=folder)


def test_adapter_whose_tensors_fit_no_layer(
    engine_of: Callable[..., Engine], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The prefix of every name is off: PEFT loads such a file with a warning, and answers as the base."""
    folder = make_adapter(model_folder(), tmp_path / "adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("layers", "blocks"): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    with pytest.raises(CorruptWeightsError, match="lacks tensors"):
        engine_of(folder=folder)


def test_weights_that_lack_a_tensor(
    engine_of: Callable[..., Engine], model_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CorruptWeightsError, match=r"lack 1 of the model's tensors, 'model\.layers\.1\.mlp"):
        engine_of(folder=folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "no_such_model"}, "transformers .* cannot load"),
        ({"hidden_size": 48}, "weights of .* (lack|cannot)"),
    ],
)
def test_config_that_does_not_fit(
    engine_of: Callable[..., Engine], model_folder: Callable[..., Path], tmp_path: Path, change: Any, message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises((NotAModelError, CorruptWeightsError), match=message) as caught:
        engine_of(folder=folder)
    assert "\n" not in str(caught.value)


def test_no_tokenizer(engine_of: Callable[..., Engine], model_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(NotAModelError, match="no tokenizer in"):
        engine_of(folder=folder)
