"""The scorer of the spec-QA task: a grader with the spec in front of it rates each answer from 1 to 10.

The spec's text stands in the sample's metadata, so a saved log can be rated again without generating, and without the spec's
folder: `inspect score LOG --scorer msm_bench/spec_rating --model-role grader=...`; `-S against=NAME` rates against another
spec.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from string import Template
from typing import Any, Self

from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, Value, metric, scorer
from inspect_ai.solver import TaskState
from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.errors import RequestError
from msm_bench.scorers.judge import Asked, GraderSeeker, ask_twice, fence, prompt_hash, rubric_text
from msm_bench.scorers.metrics import mean, mean_by, stderr, stderr_by
from msm_bench.scorers.private import shown, was_cut, without_private
from msm_bench.specs import load_spec

TEXTS = ("spec_rating_system", "spec_rating", "spec_rating_again")
"""The rubric's files: the grader's system prompt, the first asking, the second asking."""

_TAG = re.compile(r"<rating>(.*?)</rating>", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"\s*(10|[1-9])\s*")
_TAG_START = re.compile(r"<(?=\s*/?\s*rating)", re.IGNORECASE)


class RatedSpec(BaseModel):
    """The spec that answers are rated against, as it stands in a sample's metadata.

    `text` has its placeholders filled in with the two names; `sha256` is that of the spec's own `spec.md`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    agent_name: str
    provider_name: str
    text: str

    @classmethod
    def load(cls, spec: str, agent_name: str, provider_name: str) -> Self:
        """Reads a shipped spec by name, or one of the user's by folder. Raises what `load_spec` raises."""
        loaded = load_spec(spec)
        return cls(
            name=loaded.name,
            sha256=hashlib.sha256(loaded.text.encode("utf-8")).hexdigest(),
            agent_name=agent_name,
            provider_name=provider_name,
            text=loaded.render(agent_name, provider_name),
        )


@metric(scores="unreduced")
def n_scored(key: str) -> Metric:
    """How many answers were rated: `all`, and by each value of the sample metadata `key`.

    The log's `unscored_samples` has the rest, and each sample its reason.
    """

    def compute(scores: list[SampleScore]) -> Value:
        rated = [item for item in scores if not math.isnan(item.score.as_float())]
        groups = Counter(str((item.sample_metadata or {}).get(key, "?")) for item in rated)
        # A mapping, because Inspect turns a plain number over no scores into NaN, and here it is a true 0.
        return {"all": len(rated), **groups}

    return compute


@scorer(metrics={"rating": [mean(), stderr(), mean_by("dimension"), stderr_by("dimension"), n_scored("dimension")]})
def spec_rating(against: str | None = None) -> Scorer:
    """Rates one answer: `rating`, a whole number from 1 to 10, or NaN with its reason.

    The grader sees the answer without any private reasoning. An answer that was cut off is never rated. A text that is no
    readable answer is rated 1, so a model too weak to answer looks like one that rejects the spec: read its answers first.

    Args:
        against: Name or folder of a spec to rate against; None is the one that the sample was made with. (Not called `spec`,
            which Inspect's command line keeps for itself: `inspect score -S spec=...` fails.)

    Raises:
        UnknownNameError: No such spec. It comes with the first sample: Inspect replaces the message of an error that a scorer
            raises while it is made.
        RequestError: The sample was not made by `msm_bench/spec_qa`.
    """
    seek_grader = GraderSeeker(
        "'rating' stays unscored (not_judged). "
        "Rate later with: inspect score LOG --scorer msm_bench/spec_rating --model-role grader=PROVIDER/MODEL"
    )

    async def score(state: TaskState, target: Target) -> Score:
        spec = _spec(state.metadata, against)
        answer = shown(state.output, reasoning=False)
        judge: dict[str, Any] = {}
        rating: int | None = None
        if was_cut(state.output) or (answer and state.output.stop_reason == "content_filter"):
            outcome, explanation = "target_truncated", "The answer was cut off, and a part of an answer is not rated."
        elif not answer:
            outcome, explanation = "target_empty", "The model wrote nothing to rate."
        elif (grader := seek_grader()) is None:
            outcome, explanation = "not_judged", "No grader was available."
        else:
            messages = rating_prompt(spec.text, state.input_text, answer)
            asked: Asked[int] = await ask_twice(grader, messages, rubric_text(TEXTS[2]).strip(), read_rating)
            rating, outcome, explanation = asked.value, asked.failure or "rated", asked.text
            judge = {"model": str(grader), "prompt": prompt_hash(*TEXTS), "attempts": asked.attempts}
        return Score(
            value={"rating": math.nan if rating is None else float(rating)},
            explanation=explanation,
            reason=None if rating is not None else outcome,
            metadata={"outcome": outcome, "judge": judge, "spec": spec.model_dump(include={"name", "sha256"})},
        )

    return score


def rating_prompt(spec_text: str, question: str, answer: str) -> list[ChatMessage]:
    """The messages of the first asking: the spec in full, the question, the fenced answer and the rubric.

    The mark of the boundaries comes from the answer's hash, so the answer cannot hold it. Rating tags in the answer lose their
    bracket: a grader that quotes one has not given a rating. All that is the same for every answer comes first, so that servers
    which cache prompts read the spec once.
    """
    harmless = _TAG_START.sub("&lt;", answer)
    body = Template(rubric_text(TEXTS[1])).substitute(
        spec=spec_text.strip(), question=question.strip(), answer=harmless, mark=fence(harmless)
    )
    return [ChatMessageSystem(content=rubric_text(TEXTS[0]).strip()), ChatMessageUser(content=body)]


def read_rating(answer: str) -> int | None:
    """The rating in a grader's answer: one tag, at the end, with a whole number from 1 to 10; None for anything else.

    The grader's own thinking may weigh other numbers and does not count.
    """
    visible = without_private(answer)
    tags = list(_TAG.finditer(visible))
    if len(tags) != 1 or visible[tags[0].end() :].strip():
        return None
    number = _NUMBER.fullmatch(tags[0][1])
    return int(number[1]) if number else None


def _spec(metadata: Mapping[str, Any], against: str | None) -> RatedSpec:
    """The sample's own spec, or the named one with the sample's two names in it."""
    try:
        own = RatedSpec.model_validate(metadata.get("spec"))
    except ValidationError as error:
        raise RequestError(
            "The sample does not carry the spec that it was made with, so it is no spec-QA sample.",
            "Score a log of msm_bench/spec_qa.",
        ) from error
    return RatedSpec.load(str(against), own.agent_name, own.provider_name) if against is not None else own
