"""Plans documents from the spec's own text, without any call: for generators that are too small to plan.

Every passage of the spec (some sentences of one paragraph) meets every kind of document of `simple.yaml` once, the passages in
turn, each time in an order that depends on the seed alone.
"""

import random
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from msm_bench.corpus.offline.spec_text import sections_of
from msm_bench.corpus.pipeline.planning import Draft
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.errors import RequestError
from msm_bench.specs.loading import Spec


def refuse_unfit(kind: str, critique: bool, voice: str) -> None:
    """Raises `RequestError` where what is wanted needs the whole pipeline."""
    if kind != "documents" or critique or voice != "as_written":
        problem = "A generator that is too small for the whole pipeline writes plain documents only."
        mend = "Leave --simple out, or the chats, the review and the voice (chats without a model: --offline)."
        raise RequestError(problem, mend)


@cache
def simple() -> dict[str, Any]:
    """`simple.yaml`: the kinds of document, and the limits of texts that small generators write."""
    loaded: dict[str, Any] = yaml.safe_load((files("msm_bench") / "corpus" / "pipeline" / "simple.yaml").read_text("utf-8"))
    return loaded


class SpecPlan:
    """A plan that the spec's text gives.

    Args:
        spec: The spec.
        settings: What is wanted.
    """

    def __init__(self, spec: Spec, settings: Settings) -> None:
        passages = passages_of(spec, settings.model_name, settings.provider_name)
        kinds: dict[str, str] = simple()["kinds"]
        names = list(kinds)
        self._drafts = []
        for layer in range(len(names)):
            places = random.Random(f"{settings.seed}/{layer}").sample(range(len(passages)), len(passages))
            for place in places:
                domain, subdomain, passage = passages[place]
                kind = names[(place + layer) % len(names)]
                item = f"p{place:03}-{kind.replace(' ', '-')}"
                idea = f"A {kind} that says in its own words: {passage}"
                self._drafts.append(Draft(item, domain, subdomain, kind, kinds[kind], (passage,), idea))
        self._used = 0

    async def next(self, count: int) -> list[Draft] | None:
        """The next drafts; None where every passage has met every kind of document."""
        batch = self._drafts[self._used : self._used + count]
        self._used += len(batch)
        return batch or None


def passages_of(spec: Spec, model_name: str, provider_name: str) -> list[tuple[str, str, str]]:
    """The passages of a spec: heading above, own heading, some sentences about the model that need none before them."""
    least = int(simple()["passage_words"])

    def filled(text: str) -> str:
        return text.replace("{model_name}", model_name).replace("{provider_name}", provider_name)

    found = []
    for section in sections_of(spec):
        for paragraph in section.paragraphs:
            held: list[str] = []
            for place, sentence in enumerate(paragraph):
                if not held and sentence.leans:
                    continue
                held.append(filled(sentence.text))
                text = " ".join(held)
                last = place + 1 == len(paragraph)
                # A rule may be short, and is about the model without naming it.
                enough = len(text.split()) >= least or (last and bool(spec.rules))
                if enough and (last or not paragraph[place + 1].leans):
                    if model_name in text or spec.rules:
                        found.append((filled(section.parent), filled(section.heading), text))
                    held = []
    return found
