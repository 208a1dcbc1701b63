"""The assistant's name, and putting it in the place of the one that the package's text uses."""

import re

from pydantic import BaseModel, ConfigDict

from msm_bench.errors import RequestError

_VALID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .-]{0,38}[A-Za-z0-9])?")
# A neighbouring letter or digit makes it another word (Alexandria); an underscore, as in a file name, does not.
_PACKAGE_NAME = re.compile(r"(?<![^\W_])(?:Alex|alex|ALEX)(?![^\W_])")


class AgentName(BaseModel):
    """The name as written in prose, and as it stands in addresses, paths (`lower`) and codes (`upper`)."""

    model_config = ConfigDict(frozen=True)

    display: str
    lower: str
    upper: str

    @property
    def slots(self) -> dict[str, str]:
        """The name's values for the templates of this folder."""
        return {"agent": self.display, "agent_lower": self.lower, "agent_upper": self.upper}

    def replace_in(self, text: str) -> str:
        """`text` with this name wherever the package wrote its own, in the same form."""
        forms = {"Alex": self.display, "alex": self.lower, "ALEX": self.upper}
        return _PACKAGE_NAME.sub(lambda match: forms[match.group()], text)


def read_agent_name(name: str) -> AgentName:
    """Checks a name. "Claude 3.5" gives the forms "claude-3-5" and "CLAUDE-3-5".

    Raises:
        RequestError: The name is empty, longer than 40 characters, has other characters than letters, digits, spaces,
            dots and hyphens, or does not begin and end with a letter or digit.
    """
    if not _VALID.fullmatch(name):
        raise RequestError(
            f"The agent name '{name}' cannot be put into addresses and paths.",
            "Use 1 to 40 letters, digits, spaces, dots and hyphens that begin and end with a letter or digit.",
        )
    lower = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return AgentName(display=name, lower=lower, upper=lower.upper())
