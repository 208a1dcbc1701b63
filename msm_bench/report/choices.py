"""The small file of choices: what the logs cannot know. Everything else in a report is computed.

title: Cheese on a laptop
summary: Does a spec about affordability change what the same fine-tuning teaches?
arms:                      # the order of the rows; an arm without a log is shown as a hole
  base: Base model
  aft: {label: AFT alone, paper: aft}
  msm+aft: {label: MSM + AFT, paper: msm(affordability)+aft}
contrasts:                 # declared before the results were seen
  - msm+aft vs aft on affordability minus america
keys: [aligned, valid]     # columns of the tables, in this order; every key where it is not given
against: published:llama-3.1-8b
deviations: [The documents were composed without a model.]
transcripts: {conditions: 27, rollouts: 2}
"""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from msm_bench.errors import RequestError


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArmChoice(_Strict):
    """How one arm is shown."""

    label: str | None = None
    """Its name on the page; the arm's own name where it is not given."""
    paper: str | None = None
    """The arm of the published numbers that it is set against; by equal names where it is not given."""


class Transcripts(_Strict):
    """How much is shown side by side."""

    conditions: int = Field(default=27, ge=0)
    """Conditions of a task that get a page, spread evenly over all of them."""
    rollouts: int = Field(default=2, ge=1)
    """Rollouts of an arm on each page: the first ones, never picked by what they say."""


class Choices(_Strict):
    """A file of choices."""

    title: str = "MSM-Bench report"
    summary: str = ""
    arms: dict[str, ArmChoice] = {}
    contrasts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    against: str | None = None
    deviations: tuple[str, ...] = ()
    transcripts: Transcripts = Transcripts()

    @field_validator("arms", mode="before")
    @classmethod
    def _short_forms(cls, arms: Any) -> Any:
        """A list of names, or a label instead of an arm's settings."""
        if isinstance(arms, list):
            arms = dict.fromkeys(map(str, arms))
        if not isinstance(arms, dict):
            return arms
        return {str(name): {"label": entry} if isinstance(entry, str) else entry or {} for name, entry in arms.items()}

    def label(self, arm: str) -> str:
        """What an arm is called on the page."""
        entry = self.arms.get(arm)
        return entry.label if entry and entry.label else arm


def load_choices(path: str | Path | None) -> Choices:
    """Reads a file of choices; without a path, the choices of an empty file.

    Raises:
        RequestError: The file is missing, is no YAML, or does not fit; the message names the place and the nearest right name.
    """
    if path is None:
        return Choices()
    file = Path(path).expanduser()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"The choices '{file}' cannot be read ({error.strerror}).", "Name a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{file} is no YAML file: {' '.join(str(error).split())[:300]}.", "Mend the file.") from error
    try:
        return Choices.model_validate({} if content is None else content)
    except ValidationError as error:
        raise RequestError(f"{file} does not fit: {_first_problem(error)}.", "Mend the file.") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    inner: dict[str, type[BaseModel]] = {"arms": ArmChoice, "transcripts": Transcripts}
    place_of = inner.get(str(first["loc"][0]), Choices) if len(first["loc"]) > 1 else Choices
    known = list(place_of.model_fields)
    near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"unknown key '{place}', {hint}"
