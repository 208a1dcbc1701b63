"""An arm is a line of stages: `msm:philosophy+5%anti-spec aft:philosophy`.

A stage is `TRAINER:SOURCE`, where a source is a spec's name or the folder of a corpus, and `+5%SOURCE` mixes in a share of all
rows (`+20%mix` is the instruction mix). Two stages train nothing: `in_context:SPEC` puts a spec into the prompt, and
`adapter:PATH` takes an adapter that was made elsewhere. The empty line is the base model. Braces make a grid:
`msm:{rules,rules-values} aft:{rules,rules-values}` is four arms.
"""

import itertools
import re

from pydantic import BaseModel, ConfigDict

from msm_bench.errors import RequestError

_SHARE = re.compile(r"\+(?P<share>\d+(?:\.\d+)?)%(?P<source>[^+\s]+)")
_STAGE = re.compile(r"^(?P<kind>[a-z_]+):(?P<source>[^+\s]+)(?P<shares>(?:\+\d+(?:\.\d+)?%[^+\s]+)*)$")
_BRACES = re.compile(r"\{([^{}]*)\}")
_UNTRAINED = ("in_context", "adapter")


class Stage(BaseModel):
    """One stage of an arm."""

    model_config = ConfigDict(frozen=True)

    kind: str
    """A trainer's name, `in_context` or `adapter`."""
    source: str
    shares: tuple[tuple[str, float], ...] = ()
    """Sources that are mixed in, each with its share of all rows."""

    @property
    def trained(self) -> bool:
        """Whether the stage trains."""
        return self.kind not in _UNTRAINED

    @property
    def text(self) -> str:
        """As it is written."""
        return f"{self.kind}:{self.source}" + "".join(f"+{share * 100:g}%{source}" for source, share in self.shares)


class Arm(BaseModel):
    """The stages of an arm, in order."""

    model_config = ConfigDict(frozen=True)

    stages: tuple[Stage, ...] = ()

    @property
    def text(self) -> str:
        """As it is written; the empty text is the base model."""
        return " ".join(stage.text for stage in self.stages)

    @property
    def trained(self) -> tuple[Stage, ...]:
        """The stages that train."""
        return tuple(stage for stage in self.stages if stage.trained)

    def untrained(self, kind: str) -> str | None:
        """The source of the stage `in_context` or `adapter`, None where there is none."""
        return next((stage.source for stage in self.stages if stage.kind == kind), None)


def parse_arm(text: str) -> Arm:
    """An arm from its text.

    Raises:
        RequestError: a part is no stage, an adapter comes after a stage, or shares are not below 100 %.
    """
    stages = []
    for part in text.split():
        match = _STAGE.match(part)
        if match is None:
            raise RequestError(f"'{part}' is no stage.", "Write TRAINER:SOURCE or TRAINER:SOURCE+5%SOURCE.")
        shares = tuple((found["source"], float(found["share"]) / 100) for found in _SHARE.finditer(match["shares"]))
        if sum(share for _, share in shares) >= 1:
            raise RequestError(
                f"The shares of '{part}' leave nothing for {match['source']}.", "Let them add up to less than 100 %."
            )
        stages.append(Stage(kind=match["kind"], source=match["source"], shares=shares))
    kinds = [stage.kind for stage in stages]
    if "adapter" in kinds[1:]:
        raise RequestError(f"In '{text}' an adapter comes after a stage.", "Name the adapter first.")
    if kinds.count("in_context") > 1:
        raise RequestError(f"'{text}' puts two specs into the prompt.", "Name one.")
    return Arm(stages=tuple(stages))


def expand(line: str) -> list[str]:
    """All arms of a grid's line, the last braces running fastest."""
    choices = [[part.strip() for part in group.split(",")] for group in _BRACES.findall(line)]
    if any(not part for group in choices for part in group):
        raise RequestError(f"The grid '{line}' has an empty choice.", "Write {a,b} with a name on each side of a comma.")
    texts = []
    for picked in itertools.product(*choices):
        names = iter(picked)
        texts.append(_BRACES.sub(lambda _, names=names: next(names), line))  # type: ignore[misc]
    return texts


def matched_control(arm: Arm) -> Arm | None:
    """The arm without its first training stage (`aft` alone for `msm aft`), None where fewer than two stages train.

    It answers the question that every result of midtraining meets first: what would the fine-tuning have done alone?
    """
    trained = arm.trained
    if len(trained) < 2 or arm.untrained("adapter") is not None:
        return None
    return Arm(stages=tuple(stage for stage in arm.stages if stage is not trained[0]))
