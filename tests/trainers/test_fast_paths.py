"""Every fast way to compute gives the losses and gradients of the plain way."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from trainer_makers import make_model
from transformers import AutoModelForCausalLM

from msm_bench.errors import RequestError
from msm_bench.trainers import loss, resolve_recipe
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.fitting import without_cache
from msm_bench.trainers.lora import fusable, fused_lora
from msm_bench.trainers.loss import divisible, loss_and_gradient, loss_in_pieces
from msm_bench.trainers.packing import Collate
from msm_bench.trainers.recipe import Recipe
from msm_bench.trainers.speed import fast_paths, kernels_of, row_length
from msm_bench.trainers.states import processes

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted(folder: Path, kind: str = "llama", changes: dict[str, Any] | None = None, **shape: Any) -> Any:
    """A model with an adapter that already does something: peft's own starts at nothing."""
    base = AutoModelForCausalLM.from_pretrained(make_model(folder, kind, **shape), dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ALL, "task_type": "CAUSAL_LM", **(changes or {})}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return get_peft_model(base, LoraConfig(init_lora_weights=False, **settings)).train()


def batch(*lengths: int, masked: int = 0) -> dict[str, Tensor]:
    """Two rows of packed examples; the first `masked` tokens of each example bear no loss."""
    made = []
    for seed, length in enumerate(lengths):
        ids = numpy.random.default_rng(seed).integers(6, 300, length)
        labels = numpy.where(numpy.arange(length) < masked, IGNORED, ids)
        made.append(Example.of(ids, labels, row=str(seed)))
    return Collate(pad=0)([made[:2], made[2:]])


def step(model: Any, inputs: dict[str, Tensor], shared: Any = 40) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    with without_cache(model):
        found = model(**inputs, num_items_in_batch=shared).loss
    found.backward()
    return float(found.detach()), {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def assert_equal(found: tuple[float, dict[str, Tensor]], wanted: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "smollm3"])
@pytest.mark.parametrize("path", ["lora", "loss", "both"])
def test_losses_and_gradients_are_those_of_the_plain_way(
    tmp_path: Path, kind: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "_PIECE_ELSEWHERE", 7)  # several pieces, the last one short
    model = adapted(tmp_path / "model", kind, head_dim=8)
    assert divisible(model.get_base_model())
    inputs = batch(9, 17, 5, 30, masked=3)
    wanted = step(model, inputs)
    with ExitStack() as stack:
        if path != "loss":
            assert stack.enter_context(fused_lora(model)) == 2 * len(ALL)
        if path != "lora":
            stack.enter_context(loss_in_pieces(model.get_base_model()))
        assert_equal(step(model, inputs), wanted)
        # An adapter that is switched off is none at all.
        with model.disable_adapter(), torch.no_grad(), without_cache(model):
            off = float(model(**inputs).loss)
    with model.disable_adapter(), torch.no_grad(), without_cache(model):
        assert off == pytest.approx(float(model(**inputs).loss), rel=1e-5)
    assert_equal(step(model, inputs), wanted)
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_adapters_gradients_are_float32_over_bfloat16_weights(tmp_path: Path) -> None:
    model = adapted(tmp_path / "model")
    model.get_base_model().to(torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.float() if "lora_" in name else parameter.data
    inputs = batch(9, 17, 5, 30)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = step(model, inputs)
        with fused_lora(model), loss_in_pieces(model.get_base_model()):
            found = step(model, inputs)
    assert found[0] == pytest.approx(wanted[0], rel=2e-2)
    for name, gradient in wanted[1].items():
        assert found[1][name].dtype is torch.float32
        distance = (found[1][name] - gradient).norm() / gradient.norm()
        assert distance < 0.1, name


@pytest.mark.parametrize("shared", [None, 1, torch.tensor(13)])
def test_what_the_loss_is_shared_among(tmp_path: Path, shared: Any) -> None:
    model, inputs = adapted(tmp_path / "model"), batch(9, 17, 5)
    wanted = step(model, inputs, shared)
    with loss_in_pieces(model.get_base_model()):
        assert_equal(step(model, inputs, shared), wanted)


def test_a_row_without_loss_has_a_gradient_of_nothing(tmp_path: Path) -> None:
    model = adapted(tmp_path / "model")
    inputs = Collate(pad=0)([[]])
    with fused_lora(model), loss_in_pieces(model.get_base_model()):
        found, gradients = step(model, inputs, 5)
    assert found == 0
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values())


def test_without_labels_there_are_logits(tmp_path: Path) -> None:
    model, inputs = adapted(tmp_path / "model"), batch(9, 17, 5)
    del inputs["labels"]
    with torch.no_grad(), without_cache(model), loss_in_pieces(model.get_base_model()):
        assert model(**inputs).logits.shape[-1] == model.config.vocab_size


def test_a_sure_prediction_keeps_its_gradient_in_bfloat16() -> None:
    logits = torch.tensor([[7.5, 0.0, 0.0]], dtype=torch.bfloat16)
    found, gradient = loss_and_gradient(logits, torch.tensor([0]))
    exact = logits.float().requires_grad_()
    wanted = nn.functional.cross_entropy(exact, torch.tensor([0]))
    wanted.backward()
    assert exact.grad is not None
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(gradient.float(), exact.grad, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    "changes",
    [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}],
    ids=["dropout", "dora", "bias"],
)
def test_other_adapters_stay_pefts(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = adapted(tmp_path / "model", changes=changes)
    with fused_lora(model) as count:
        assert count == 0
        step(model, batch(9, 17, 5))


def test_an_adapter_on_the_last_layer_keeps_the_whole_loss(tmp_path: Path) -> None:
    model = adapted(tmp_path / "model", changes={"target_modules": [*ALL, "lm_head"]})
    assert not divisible(model.get_base_model())
    assert not divisible(adapted(tmp_path / "other", "gemma2", head_dim=8).get_base_model())


def test_a_trained_layer_under_an_adapter_stays_pefts(tmp_path: Path) -> None:
    model = adapted(tmp_path / "model")
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    assert fusable(layer)
    layer.base_layer.weight.requires_grad_(True)
    assert not fusable(layer)


@pytest.fixture
def quick_compile(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`Module.compile` traces as it always does and leaves the code generation out; yields the modules that asked for it."""
    asked: list[str] = []
    plain = nn.Module.compile

    @functools.wraps(plain)
    def compile_(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        asked.append(type(self).__name__)
        plain(self, *args, **{**kwargs, "backend": "aot_eager", "fullgraph": True})

    monkeypatch.setattr(nn.Module, "compile", compile_)
    torch._dynamo.reset()
    yield asked
    torch._dynamo.reset()


def test_compiled_layers_are_traced_once_and_equal_the_plain_ones(tmp_path: Path, quick_compile: list[str]) -> None:
    model = adapted(tmp_path / "model", "qwen3", head_dim=8, num_hidden_layers=4)
    recipe = resolve_recipe("laptop", "msm", Recipe, {"kernels": "compile", "packing": "true"}).settings
    batches = [batch(9, 17, 5, 21), batch(6, 20, 7, 19)]
    wanted = [step(model, inputs) for inputs in batches]
    torch._dynamo.utils.counters.clear()
    with fast_paths(model, recipe):
        for inputs, plain in zip(batches, wanted, strict=True):
            assert_equal(step(model, inputs), plain)
    assert quick_compile == ["Qwen3DecoderLayer"] * 4
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert_equal(step(model, batches[0]), wanted[0])
    assert all(layer._compiled_call_impl is None for layer in model.get_base_model().model.layers)


def test_kernels_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msm_bench.trainers.speed.is_liger_kernel_available", lambda: False)
    recipe = resolve_recipe("laptop", "msm", Recipe, {"kernels": "liger"}).settings
    with pytest.raises(RequestError, match=r"liger-kernel is not installed\. Install it"), fast_paths(None, recipe):
        pass


def test_only_compiled_rows_have_one_length() -> None:
    def length(**changes: str) -> int | None:
        return row_length(resolve_recipe("paper", "msm", Recipe, changes).settings)

    assert length(kernels="compile") == 8192
    assert length() is None and length(kernels="compile", packing="false") is None


@pytest.mark.parametrize(
    ("gpu", "packing", "expected"), [(True, "true", "compile"), (True, "false", "plain"), (False, "true", "plain")]
)
def test_auto_compiles_packed_rows_on_a_gpu(gpu: bool, packing: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processes()  # joined before the machine is made to look like another
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    recipe = resolve_recipe("paper", "msm", Recipe, {"packing": packing}).settings
    assert recipe.kernels == "auto" and kernels_of(recipe) == expected
    monkeypatch.setattr("msm_bench.trainers.speed.processes", lambda: SimpleNamespace(num_processes=2))
    assert kernels_of(recipe) == "plain"


def test_a_run_has_the_losses_of_the_plain_way(quick: Callable[..., Any], tmp_path: Path) -> None:
    """A whole training: fast, and with every fast path switched off and every layer computed twice."""
    off = {"fused_lora": "false", "loss_in_pieces": "false", "gradient_checkpointing": "true", "kernels": "plain"}
    fast = quick("aft", tmp_path / "fast")
    plain = quick("aft", tmp_path / "plain", overrides=off)
    assert fast.metrics == pytest.approx(plain.metrics, abs=1e-4)
    curves = [(tmp_path / name / "losses.jsonl").read_text().splitlines() for name in ("fast", "plain")]
    assert len(curves[0]) == len(curves[1]) > 5
