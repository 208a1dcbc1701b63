"""The local labeller that comes with the package: fitted to the labelled set at first use, in seconds, and kept."""

from functools import cache

from msm_bench.scorers.patterns.fitting import Fitted, fit_labeller
from msm_bench.scorers.patterns.labelled_set import load_labelled
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.local import LocalLabeller
from msm_bench.scorers.patterns.taxonomy import load_taxonomy


@cache
def shipped() -> Fitted:
    """The labeller, its cross-validated labellings of the set, and its gates."""
    return fit_labeller(load_labelled(), load_taxonomy().ids)


def shipped_labeller() -> LocalLabeller:
    """The labeller for texts from elsewhere."""
    return shipped().labeller


def cross_validated() -> dict[str, Labelling]:
    """Id of each text of the set to its labelling by a labeller that had not seen the text's scenario."""
    return {text.id: labelling for text, labelling in zip(load_labelled(), shipped().labellings, strict=True)}
