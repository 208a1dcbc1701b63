"""Marks (`slow` tests run with --runslow, `gpu` tests with --rungpu) and tiny models for every room's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai.model import Model, get_model
from tiny_models import make_model
from transformers import AutoModelForCausalLM

import msm_bench.engine.registration  # noqa: F401  (makes `msm/` known to Inspect)
from msm_bench.checkpoints import resolve
from msm_bench.engine.engine import Engine, acquire, release
from msm_bench.engine.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow")
    parser.addoption("--rungpu", action="store_true", help="run the tests marked gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in ("slow", "gpu"):
            if mark in item.keywords and not config.getoption(f"--run{mark}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --run{mark}"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a tiny model by architecture; made once."""
    made: dict[str, Path] = {}

    def folder(architecture: str = "llama", **changes: Any) -> Path:
        name = architecture + "".join(f"-{key}-{value}" for key, value in sorted(changes.items()))
        if name not in made:
            made[name] = make_model(tmp_path_factory.mktemp("model"), architecture, **changes)
        return made[name]

    return folder


@pytest.fixture
def engine_of(model_folder: Callable[..., Path]) -> Iterator[Callable[..., Engine]]:
    """A running engine in float32; closed after the test."""
    running: list[Engine] = []

    def engine(architecture: str = "llama", folder: Path | None = None, **settings: Any) -> Engine:
        resolved = resolve(str(folder or model_folder(architecture)))
        running.append(acquire(resolved, Settings(**{"dtype": "float32", "device": "cpu", **settings})))
        return running[-1]

    yield engine
    for each in running:
        release(each)


@pytest.fixture
def plain(model_folder: Callable[..., Path]) -> Callable[..., Any]:
    """The same model in plain transformers."""

    def load(architecture: str = "llama", folder: Path | None = None) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder or model_folder(architecture), dtype=torch.float32).eval()

    return load


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def model_of(model_folder: Callable[..., Path]) -> Iterator[Callable[..., Model]]:
    """A model as a task gets it from Inspect, in float32; closed after the test."""
    made: list[Model] = []

    def model(architecture: str = "llama", **args: Any) -> Model:
        args = {"dtype": "float32", "device": "cpu", **args}
        made.append(get_model(f"msm/{model_folder(architecture)}", memoize=False, **args))
        return made[-1]

    yield model
    for each in made:
        each.api.close()
