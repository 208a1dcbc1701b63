"""The local labeller that comes with the package: fitted to the labelled set at first use, in seconds, and not kept.

What it is worth was measured once, by `held_out`, and stands in `labelled/measured.yaml`: nested cross-validation takes a
minute, and a labeller that is used must say at once which of its patterns can be believed.
"""

from functools import cache
from logging import getLogger
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from msm_bench.scorers.patterns.embedding import MiniLM, Remembering, is_installed
from msm_bench.scorers.patterns.fitting import cross_validate, train
from msm_bench.scorers.patterns.gates import KAPPA_FLOOR
from msm_bench.scorers.patterns.labelled_set import LABELLED, load_labelled, set_hash
from msm_bench.scorers.patterns.labels import Labelling
from msm_bench.scorers.patterns.local import LocalLabeller
from msm_bench.scorers.patterns.taxonomy import load_taxonomy

logger = getLogger(__name__)
MEASURED = LABELLED / "measured.yaml"
FALLBACK = "embedding was asked for and is not installed (pip install 'msm-bench[patterns]'): words alone"


class HeldOut(BaseModel):
    """What one labeller is worth on one pattern: agreement with the set's labels where scenarios are left out.

    `kappa_seen` and `kappa_family` are the same where texts of the same scenarios were learnt from, and where whole families
    of scenarios (mail, coding, lab, finance, care) are left out; None where that was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kappa: float
    precision: float
    recall: float
    average_precision: float
    kappa_seen: float | None = None
    kappa_family: float | None = None


class Measured(BaseModel):
    """The file: the set's hash, and for each labeller every pattern; none where it was not measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    labelled: str
    local: dict[str, HeldOut]
    embedding: dict[str, HeldOut] = {}


@cache
def measured(path: Path = MEASURED) -> Measured:
    """What was measured of the labellers that come with the package."""
    return Measured.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@cache
def shipped_labeller(embedding: bool = False) -> LocalLabeller:
    """The labeller for texts from elsewhere.

    Args:
        embedding: With sentence embeddings; where their package is missing, without, which a warning and the labeller's
            `info` say.
    """
    texts, known = load_labelled(), measured()
    wanted, embedding = embedding, embedding and is_installed()
    encoder = MiniLM() if embedding else None
    labeller = train(texts, load_taxonomy().ids, Remembering(encoder) if encoder else None)
    labeller.encoder = encoder
    worth = known.embedding if embedding else known.local
    if worth and set_hash(texts)[:16] == known.labelled:
        labeller.info["measurable"] = [name for name, one in worth.items() if one.kappa >= KAPPA_FLOOR]
    if wanted and not embedding:
        logger.warning(f"labeller={FALLBACK}.")
        labeller.info["note"] = FALLBACK
    return labeller


@cache
def cross_validated(embedding: bool = False) -> dict[str, Labelling]:
    """Id of each text of the set to its labelling by a labeller that had not seen the text's scenario.

    Raises:
        MissingExtraError: Embeddings were asked for and their package is missing.
    """
    texts = load_labelled()
    encoder = Remembering(MiniLM()) if embedding else None
    return {text.id: one for text, one in zip(texts, cross_validate(texts, load_taxonomy().ids, encoder=encoder), strict=True)}
