"""Recipes: every field has a source, overrides are typed, the hash is of the values."""

from pathlib import Path

import pytest
import yaml

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers import Recipe, find_trainer, list_recipes, parse_overrides, resolve_recipe
from msm_bench.trainers.recipe import RECIPES

PAPER = {
    "rank": 64,
    "alpha": 128,
    "dropout": 0,
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "warmup": 0.05,
    "weight_decay": 0.01,
    "epochs": 1,
    "max_tokens": 8192,
    "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


@pytest.mark.parametrize("trainer", ["msm", "aft", "deliberative"])
@pytest.mark.parametrize("name", list_recipes())
def test_every_field_of_a_shipped_recipe_has_a_source(name: str, trainer: str) -> None:
    kind = find_trainer(trainer).recipe
    resolved = resolve_recipe(name, trainer, kind)
    assert set(resolved.sources) == set(kind.model_fields)
    assert {source.source for source in resolved.sources.values()} <= {"paper B.4", "adapter config", "chosen"}
    assert set(resolved.chosen()) == {key for key, source in resolved.sources.items() if source.source == "chosen"}


def test_the_paper_recipe_is_the_papers() -> None:
    resolved = resolve_recipe("paper", "msm", Recipe)
    for key, value in PAPER.items():
        assert getattr(resolved.settings, key) == value
        assert resolved.sources[key].source in ("paper B.4", "adapter config")


def test_overrides_are_typed_and_named_in_the_sources() -> None:
    plain = resolve_recipe("laptop", "msm", Recipe)
    changed = resolve_recipe("laptop", "msm", Recipe, {"rank": "8", "token_budget": "5000", "thinking": "false"})
    assert (changed.settings.rank, changed.settings.token_budget, changed.settings.thinking) == (8, 5000, False)
    assert changed.sources["rank"].source == "--set"
    assert "8 (--set" in changed.chosen()["rank"]
    assert changed.sha256 != plain.sha256
    assert resolve_recipe("laptop", "msm", Recipe, {"rank": "32"}).sha256 == plain.sha256


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"rank": "many"}, "rank: Input should be a valid integer"),
        ({"rank": "-1"}, "rank: Input should be greater than 0"),
        ({"held_out": "0"}, "held_out: Input should be greater than 0"),
        ({"batch_rows": "3", "micro_batch_rows": "2"}, "batch_rows 3 is no multiple of micro_batch_rows 2"),
        ({"epochs": "[1"}, "--set epochs=.* cannot be read"),
    ],
)
def test_values_that_do_not_fit(overrides: dict[str, str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        resolve_recipe("laptop", "msm", Recipe, overrides)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown setting of 'msm' 'learning_rat'\. Did you mean 'learning_rate'"):
        resolve_recipe("laptop", "msm", Recipe, {"learning_rat": "1"})
    with pytest.raises(UnknownNameError, match="Use one of: laptop, paper"):
        resolve_recipe("labtop", "msm", Recipe)
    with pytest.raises(RequestError, match="Write --set NAME=VALUE"):
        parse_overrides(["rank 8"])
    assert parse_overrides(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    content = yaml.safe_load((RECIPES / "laptop.yaml").read_text(encoding="utf-8"))
    content["name"] = "mine"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    assert resolve_recipe(str(path), "msm", Recipe).sha256 == resolve_recipe("laptop", "msm", Recipe).sha256
    del content["settings"]["rank"]["reason"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RequestError, match=r"settings\.rank .*a chosen value needs a reason"):
        resolve_recipe(str(path), "msm", Recipe)
    del content["settings"]["rank"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RequestError, match="does not fit msm: rank: Field required"):
        resolve_recipe(str(path), "msm", Recipe)


def test_settings_of_another_trainer_are_not_taken() -> None:
    with pytest.raises(UnknownNameError, match="rl_updates"):
        resolve_recipe("laptop", "aft", find_trainer("aft").recipe, {"rl_updates": "3"})
    assert resolve_recipe("laptop", "deliberative", find_trainer("deliberative").recipe, {"rl_updates": "3"})
