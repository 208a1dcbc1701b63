"""Two processes over gloo make the same updates as one, through the command that a user gives."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from trainer_makers import make_model

from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.trainers.launch import CONFIGS, config_file


def curve(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "losses.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(quick: Callable[..., Any], tmp_path: Path) -> None:
    one = quick("msm", tmp_path / "one")
    two = quick("msm", tmp_path / "two", accelerate="cpu-2")
    assert (one.cost["processes"], two.cost["processes"]) == (1, 2)
    assert curve(tmp_path / "one") == pytest.approx(curve(tmp_path / "two"), abs=1e-5)
    assert one.metrics == pytest.approx(two.metrics, abs=1e-5)


@pytest.fixture
def sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """FSDP2 as the shipped configuration of two GPUs asks for it, on two CPU processes, in a precision."""
    door = Path(__file__).with_name("fsdp_on_cpu")
    monkeypatch.setenv("PYTHONPATH", f"{door}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    def write(precision: str) -> str:
        content = yaml.safe_load((CONFIGS / "gpu-2.yaml").read_text(encoding="utf-8"))
        path = tmp_path / f"fsdp-{precision}.yaml"
        path.write_text(yaml.safe_dump({**content, "use_cpu": True, "mixed_precision": precision, "main_process_port": 0}))
        return str(path)

    return write


@pytest.mark.parametrize("tied", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sharded_weights_have_the_same_loss_curve(
    tied: bool, quick: Callable[..., Any], sharded: Callable[[str], str], tmp_path: Path
) -> None:
    model = str(make_model(tmp_path / "model", tie_word_embeddings=tied))
    one = quick("msm", tmp_path / "one", model=model)
    two = quick("msm", tmp_path / "two", model=model, accelerate=sharded("no"))
    assert two.cost["processes"] == 2
    assert curve(tmp_path / "one") == pytest.approx(curve(tmp_path / "two"), abs=1e-5)
    assert one.metrics == pytest.approx(two.metrics, abs=1e-5)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_losses_of_sharded_bfloat16_are_not_rounded(
    quick: Callable[..., Any], sharded: Callable[[str], str], tmp_path: Path
) -> None:
    half = {"dtype": "bfloat16"}
    one = quick("msm", tmp_path / "one", overrides=half)
    two = quick("msm", tmp_path / "two", overrides=half, accelerate=sharded("bf16"))
    assert one.metrics == pytest.approx(two.metrics, abs=0.02)
    losses = curve(tmp_path / "two")
    assert curve(tmp_path / "one") == pytest.approx(losses, abs=0.02)
    assert torch.tensor(losses).bfloat16().float().tolist() != pytest.approx(losses, abs=1e-6)


@pytest.mark.slow
def test_a_failing_process_ends_the_run(quick: Callable[..., Any], tmp_path: Path) -> None:
    wild = {"learning_rate": "1e30", "max_grad_norm": "0", "epochs": "4", "schedule": "constant_with_warmup"}
    with pytest.raises(WorkError, match=r"A process of the run failed .*goes on from the last complete state"):
        quick("msm", tmp_path / "out", accelerate="cpu-2", overrides=wild)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share(quick: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises((RequestError, WorkError)):
        quick("msm", tmp_path / "out", accelerate="cpu-2", overrides={"batch_rows": "1"})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations(path: Path) -> None:
    from accelerate.commands.config import load_config_from_file

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    loaded = load_config_from_file(str(path))
    assert loaded.num_processes == content["num_processes"]
    if content["distributed_type"] == "FSDP":
        assert content["fsdp_config"]["fsdp_version"] == 2
        # The trained adapter is float32 and the base is not, so every layer is sharded by itself.
        assert content["fsdp_config"]["fsdp_auto_wrap_policy"] == "TRANSFORMER_BASED_WRAP"


def test_configurations_by_name_or_path(tmp_path: Path) -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} >= {"gpu-1", "gpu-2", "gpu-4", "gpu-8", "nodes", "cpu-2"}
    assert config_file("gpu-8").name == "gpu-8.yaml"
    own = tmp_path / "mine.yaml"
    own.write_text("num_processes: 1\n")
    assert config_file(str(own)) == own
    with pytest.raises(UnknownNameError, match="Did you mean 'gpu-8'"):
        config_file("gpu8")
