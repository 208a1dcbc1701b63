"""Recipes are told apart by what is in them, not by what they are called."""

from pathlib import Path

import pytest
from log_makers import CONDITIONS, agentic

from msm_bench.analysis.compare import compare
from msm_bench.analysis.recipes import conflicts, in_words, recipe_id, recipe_label
from msm_bench.errors import RequestError

SETTINGS = {"rank": 64, "learning_rate": 1e-4, "seed": 0, "token_budget": None, "save_every": 25}


def recipe(**changes: object) -> str:
    return recipe_id({"name": "paper", "version": 1, "settings": {**SETTINGS, **changes}})


def test_a_hash_holds_what_a_comparison_must_hold_fixed() -> None:
    assert recipe() == recipe(seed=3) == recipe(token_budget=10_000) == recipe(save_every=50)
    assert recipe() != recipe(learning_rate=5e-5) and recipe().startswith("paper v1 ")


def test_stages_are_compared_trainer_by_trainer() -> None:
    one, other = recipe(), recipe(learning_rate=5e-5)
    aft, both = recipe_label({"aft": one}, "paper"), recipe_label({"msm": other, "aft": one}, "paper")
    assert aft is not None and both is not None
    assert conflicts([aft, both]) == []
    assert conflicts([f"aft={other}", both]) == [f"aft: {' | '.join(sorted((one, other)))}"]
    assert in_words(both) == f"aft {one}, msm {other}" and in_words("paper") == "paper"


def test_a_bare_name_goes_with_every_recipe_of_that_name() -> None:
    assert conflicts(["paper", f"aft={recipe()}"]) == [] == conflicts(["paper"])
    assert conflicts(["laptop", f"aft={recipe()}"]) == ["laptop | paper"] == conflicts(["laptop", "paper"])


def test_recipes_of_one_name_are_refused_when_they_differ(tmp_path: Path) -> None:
    for arm, stages in (
        ("a", {"aft": recipe()}),
        ("b", {"aft": recipe(rank=8)}),
        ("c", {"aft": recipe(), "msm": recipe(rank=8)}),
    ):
        facts = {"recipe": "paper", "recipes": stages}
        agentic(tmp_path / f"{arm}.eval", dict.fromkeys(CONDITIONS, (3, 6)), arm=arm, metadata=facts)
    assert compare(tmp_path, contrasts=["c vs a"]).contrasts
    with pytest.raises(RequestError, match=r"not measured alike.*recipe: aft: paper v1"):
        compare(tmp_path, contrasts=["b vs a"])
    labelled = compare(tmp_path, contrasts=["b vs a"], insist=True).contrasts[0].labels
    assert len(labelled) == 1 and labelled[0].startswith("recipe: aft: paper v1")
