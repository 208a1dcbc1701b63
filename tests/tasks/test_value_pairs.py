"""The shipped probe pairs keep within the limits of their own checks, and out of the training domain."""

import pytest

from msm_bench.specs import list_specs, load_spec
from msm_bench.tasks.value_preferences.checks import figures, forbidden_words
from msm_bench.tasks.value_preferences.pairs import ITEMS, load_pairs

SHIPPED = sorted(path.stem for path in ITEMS.glob("*.csv"))
SPECS = [load_spec(name) for name in list_specs()]


@pytest.mark.parametrize("value", SHIPPED)
def test_figures_are_within_limits(value: str) -> None:
    assert figures(value).violations() == []


@pytest.mark.parametrize("value", SHIPPED)
def test_no_word_of_the_training_domain(value: str) -> None:
    (words,) = {tuple(spec.train_words) for spec in SPECS if spec.value == value and spec.name.count("-") == 1}
    assert forbidden_words(load_pairs(value), list(words)) == []
