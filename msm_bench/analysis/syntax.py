"""The one-line language of contrasts: `A vs B [on GROUP [minus GROUP]] [within MODEL] [margin 0.05]`.

msm+aft vs aft                                     over everything
msm+aft vs aft on leaking                          one scenario, value, goal or domain
msm(america)+aft vs msm(affordability)+aft on america minus affordability    the interaction
msm+aft vs base within qwen2.5-32b                 one base model of several
aft vs base margin 0.05                            a null is claimed: equivalence within 0.05
"""

import re

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError

from msm_bench.errors import RequestError

_PATTERN = re.compile(
    r"^\s*(?P<a>.+?)\s+vs\.?\s+(?P<b>.+?)"
    r"(?:\s+on\s+(?P<on>\S+)(?:\s+minus\s+(?P<minus>\S+))?)?"
    r"(?:\s+within\s+(?P<within>\S+))?"
    r"(?:\s+margin\s+(?P<margin>\S+))?\s*$"
)


class Contrast(BaseModel):
    """A declared comparison: arm `a` minus arm `b`; on one group, or on `on` minus the same on `minus`; within one base model.

    `margin` is given when a null is claimed: the difference is to be shown smaller than it, in either direction.
    """

    model_config = ConfigDict(frozen=True)

    a: str
    b: str
    on: str | None = None
    minus: str | None = None
    within: str | None = None
    margin: PositiveFloat | None = None

    @property
    def group(self) -> str:
        """The group in words, "all" without one."""
        return f"{self.on} minus {self.minus}" if self.minus else self.on or "all"


def parse_contrast(text: str) -> Contrast:
    """Reads one contrast.

    Raises:
        RequestError: The text does not follow the syntax, or the margin is no positive number.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise RequestError(
            f"'{text}' is no contrast.", "Write: A vs B [on GROUP [minus GROUP]] [within MODEL] [margin NUMBER]."
        )
    try:
        return Contrast.model_validate(match.groupdict())
    except ValidationError as error:
        problem = f"The margin in '{text}' is no positive number."
        raise RequestError(problem, "Write it as a difference of rates, e.g. 0.05.") from error
