"""Tiny models and corpora, made once a session, and one `train` call with everything small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_makers import FAST, chats_folder, documents_folder, make_model

from msm_bench.checkpoints.manifest import Checkpoint
from msm_bench.trainers import train


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers."""
    return make_model(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return documents_folder(tmp_path_factory.mktemp("corpus") / "documents")


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chats_folder(tmp_path_factory.mktemp("corpus") / "chats")


@pytest.fixture
def quick(base: Path, documents: Path, chats: Path) -> Callable[..., Any]:
    """`train` on the tiny model with the fast settings; every argument can be given."""

    def run(name: str, out: Path, **given: Any) -> Any:
        overrides = {**FAST, **given.pop("overrides", {})}
        given.setdefault("data", [documents if name == "msm" else chats])
        given.setdefault("model", None if given.get("parent") else str(base))
        given.setdefault("allow_few_updates", True)
        return train(name, given.pop("recipe", "laptop"), out=out, overrides=overrides, **given)

    return run


@pytest.fixture(scope="session")
def midtrained(base: Path, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    """A finished `msm` checkpoint and its record."""
    out = tmp_path_factory.mktemp("trained") / "msm"
    found = train("msm", "laptop", str(base), [documents], out, overrides=FAST, allow_few_updates=True)
    assert isinstance(found, Checkpoint)
    return out, found


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
