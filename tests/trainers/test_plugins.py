"""A trainer of another installed package comes in by its entry point, and so do the built-in ones."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers import Trainer, contract, find_trainer, list_trainers, trainer

TOY = Path(__file__).parent / "toy_plugin"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy package as pip leaves it: a module and its dist-info on the path."""
    monkeypatch.syspath_prepend(str(TOY))
    monkeypatch.setattr(contract, "_trainers", dict(contract._trainers))
    yield
    sys.modules.pop("msm_bench_toy", None)


def test_the_built_in_trainers_come_in_by_the_same_door() -> None:
    found = {entry.name: entry.value for entry in entry_points(group=contract.GROUP)}
    assert {"msm", "aft", "deliberative"} <= found.keys()
    assert found["msm"] == "msm_bench.trainers.builtin"


def test_an_outsiders_trainer_trains(installed: None, quick: Callable[..., Any], documents: Path, tmp_path: Path) -> None:
    assert "reversed" in list_trainers()
    found = quick("reversed", tmp_path / "out", data=[documents], overrides={"every": "3"})
    assert found.trainer == "reversed"
    assert found.recipe["settings"]["every"] == 3 and found.recipe["settings"]["rank"] == 4
    plain = quick("reversed", tmp_path / "plain", data=[documents])
    assert plain.recipe["sources"]["every"] == {"source": "default", "reason": "the default of 'reversed'"}
    assert plain.id != found.id


def test_what_cannot_be_loaded(installed: None) -> None:
    with pytest.raises(RequestError, match=r"'broken' of msm_bench_toy_missing cannot be loaded: ModuleNotFoundError"):
        find_trainer("broken")
    with pytest.raises(RequestError, match="registers no trainer 'silent'"):
        find_trainer("silent")
    with pytest.raises(UnknownNameError, match="Did you mean 'reversed'"):
        find_trainer("reverse")


def test_a_name_belongs_to_one_class(installed: None) -> None:
    find_trainer("reversed")
    with pytest.raises(RequestError, match="Two trainers are called 'reversed'"):
        trainer("reversed")(type("Other", (Trainer,), {}))
