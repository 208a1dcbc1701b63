"""Which layers compute their activations twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_makers import make_model
from transformers import AutoModelForCausalLM, TrainingArguments

from msm_bench.trainers import memory, resolve_recipe
from msm_bench.trainers.fitting import on_one_card
from msm_bench.trainers.memory import checkpoint, fixed_count, layers_of, spared
from msm_bench.trainers.recipe import Recipe


@pytest.fixture
def model(tmp_path: Path) -> Any:
    folder = make_model(tmp_path / "model", num_hidden_layers=4)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()


def kept(model: Any) -> tuple[float, int]:
    """The loss of a row, and the values that its forward pass keeps for the backward pass."""
    ids = torch.arange(6, 46)[None]
    sizes: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    found = sum(sizes.values())
    loss.backward()
    return float(loss.detach()), found


def test_fewer_layers_twice_keep_more_and_compute_the_same(model: Any) -> None:
    found = {}
    for count in (0, 1, 3, 4):
        checkpoint(model, count)
        flags = [layer.gradient_checkpointing for layer in layers_of(model)]
        assert flags == [number < count for number in range(4)]
        found[count] = kept(model)
    assert found[0][1] > found[1][1] > found[3][1] > found[4][1]
    assert len({loss for loss, _ in found.values()}) == 1


def test_how_many_layers_are_spared() -> None:
    assert spared(available=100, peak=40, each=20, layers=36) == 3
    assert spared(available=100, peak=120, each=20, layers=36) == 0
    assert spared(available=1e6, peak=40, each=20, layers=36) == 36
    assert spared(available=100, peak=40, each=0, layers=36) == 36


@pytest.mark.parametrize(("asked", "count"), [("true", 8), ("false", 0), ("3", 3), ("99", 8), ("1", 1), ("0", 0), ("auto", 0)])
def test_what_a_recipe_asks_for(asked: str, count: int) -> None:
    recipe = resolve_recipe("laptop", "msm", Recipe, {"gradient_checkpointing": asked}).settings
    assert fixed_count(recipe, 8) == count


def test_only_one_cuda_device_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = resolve_recipe("paper", "msm", Recipe, {"gradient_checkpointing": "auto"}).settings
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for count, found in ((1, None), (2, 8)):
        monkeypatch.setattr(memory, "processes", lambda count=count: type("Some", (), {"num_processes": count}))
        assert fixed_count(recipe, 8) == found


class Card:
    """A card's bookkeeping as `_measured` reads it: 100 bytes after a pass that keeps nothing, 130 when one layer keeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        readings: Iterator[int] = iter((100, 130))
        for name, value in {
            "memory_allocated": lambda: next(readings),
            "max_memory_allocated": lambda: 200,
            "memory_reserved": lambda: 300,
            "mem_get_info": lambda: (free, 1000),
            "reset_peak_memory_stats": lambda: None,
            "empty_cache": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.parametrize(("free", "twice", "offload"), [(10, 3, False), (40, 2, False), (1000, 0, False), (0, 4, True)])
def test_the_measured_count(model: Any, monkeypatch: pytest.MonkeyPatch, free: int, twice: int, offload: bool) -> None:
    """Of free + 300 bytes reserved - 50 of margin, 200 for a pass and 8 a trained value are taken; a layer keeps 30."""
    Card(monkeypatch, free)
    trained = [torch.nn.Parameter(torch.zeros(3 if free else 30))]
    ids = torch.arange(6, 46)[None]
    passes = []

    def loss() -> torch.Tensor:
        passes.append([layer.gradient_checkpointing for layer in layers_of(model)])
        found: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
        return found

    assert memory._measured(model, trained, loss) == (twice, offload)
    assert passes == [[True] * 4, [True] * 3 + [False]]


def test_a_pass_that_does_not_fit_moves_inputs_to_the_host(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, 1000)

    def loss() -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    assert memory._measured(model, [], loss) == (4, True)
    checkpoint(model, 4, offload=False)


def test_a_process_trains_on_one_card_of_several(tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path))
    arguments._n_gpu = 4  # what transformers finds on a machine with four
    assert on_one_card(arguments).n_gpu == 1
