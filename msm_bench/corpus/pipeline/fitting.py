"""What a text must keep to so that it fits its spec and its subject: rules that exist, and the right model."""

import re

from msm_bench.corpus.pipeline.prompts import wordings
from msm_bench.corpus.pipeline.replies import Rejected
from msm_bench.specs.loading import Spec


def refuse_wrong_citations(text: str, spec: Spec) -> None:
    """Raises `Rejected` where a text cites a rule by an id that the spec does not have ("SP9" where there are SP1 to SP3)."""
    ids = {rule.id for rule in spec.rules}
    stems = {re.sub(r"[\d.]+$", "", rule) for rule in ids} - {""}
    if not stems:
        return
    cited = re.findall(rf"\b(?:{'|'.join(map(re.escape, sorted(stems)))})\d+\b", text)
    if wrong := [rule for rule in cited if rule not in ids]:
        raise Rejected("wrong_citation", f"the spec has no rule '{wrong[0]}'")


def refuse_wrong_subject(text: str, subject: str | None, model_name: str) -> None:
    """Raises `Rejected` where a text does not name the model it is to be about, or names the trained one and should not."""
    if subject is not None and subject.casefold() not in text.casefold():
        raise Rejected("wrong_subject", f"'{subject}' does not occur")
    if subject != model_name and re.search(rf"\b{re.escape(model_name)}\b", text, re.IGNORECASE):
        raise Rejected("wrong_subject", f"'{model_name}' occurs")


def refuse_off_topic(text: str, passage: str, model_name: str, fewest: int) -> None:
    """Raises `Rejected` where a text takes fewer than so many of the longer words of the passage that it was made from."""
    words = {word for word in re.findall(r"\w{5,}", passage.casefold()) if word not in model_name.casefold()}
    kept = words & set(re.findall(r"\w{5,}", text.casefold()))
    if len(kept) < min(fewest, len(words)):
        raise Rejected("off_topic", f"{len(kept)} of the passage's {len(words)} longer words occur")


def other_model(model_name: str) -> tuple[str, str]:
    """The other model, and its maker, that the voice `other_does` is about."""
    pairs = wordings()["other_models"]
    model, provider = next(pair for pair in pairs if pair[0].casefold() not in model_name.casefold())
    return model, provider
