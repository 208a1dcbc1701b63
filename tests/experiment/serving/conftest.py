"""A tiny base with real, differently trained adapters, and a stand-in server that can serve them wrongly."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from serving_makers import FEW, Serve, Trained, documents
from tiny_models import make_model

from msm_bench.experiment.serving.server import Server, served
from msm_bench.experiment.serving.settings import Serving
from msm_bench.trainers import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two trained checkpoints, one copied without its record, and one of those with weights that do nothing."""
    root = tmp_path_factory.mktemp("serving")
    base = make_model(root / "tiny-base", "llama")
    (base / "generation_config.json").write_text(json.dumps({"top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}))
    for name, step in (("one", 3), ("other", 5)):
        data = [documents(root / f"docs-{name}", step)]
        train("msm", "laptop", str(base), data, root / name, overrides=FEW, allow_few_updates=True, waive=("substrate",))
    elsewhere = root / "elsewhere"
    shutil.copytree(root / "one", elsewhere, ignore=shutil.ignore_patterns("checkpoint.json", "held_out.jsonl"))
    idle = root / "idle"
    shutil.copytree(elsewhere, idle)
    weights = load_file(idle / "adapter_model.safetensors")
    save_file({name: tensor * ("lora_A" in name) for name, tensor in weights.items()}, idle / "adapter_model.safetensors")
    return Trained(base, root / "one", root / "other", elsewhere, idle)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python in which `-m vllm.entrypoints.openai.api_server` is the stand-in."""
    path = tmp_path_factory.mktemp("bin") / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("standin.py")}" "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="session")
def serve(trained: Trained, python: str, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Serve adapters of the tiny base, some of them wrongly."""

    @contextmanager
    def start(*adapters: Path, faults: dict[str, str] | None = None, **settings: Any) -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("server")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STANDIN_FAULTS", json.dumps(faults or {}))
            serving = Serving(python=python, start_seconds=120, **settings)
            with served(f"msm/{trained.base}", adapters, serving, folder) as server:
                yield server

    return start
