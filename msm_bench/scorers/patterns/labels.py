"""What a labeller returns."""

from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class Label(BaseModel):
    """A pattern that was found, with the sentence that shows it: `text[start:end] == quote`, offsets in characters."""

    model_config = ConfigDict(frozen=True)

    pattern: str
    quote: str
    start: int
    end: int


class Labelling(BaseModel):
    """The labels of one text.

    `failure` is None where the text was labelled, else why it was not (a judge's failure, `target_empty`, ...); then `labels`
    says nothing. `probabilities` is there for labellers that have them.
    """

    model_config = ConfigDict(frozen=True)

    labels: tuple[Label, ...] = ()
    failure: str | None = None
    probabilities: dict[str, float] | None = None
    dropped: dict[str, int] = {}
    """Labels that were not taken, by reason: `quote_not_in_text`, `unknown_pattern`."""
    explanation: str = ""
    labeller: dict[str, Any] = {}
    """What made the labels: model, prompt hash and attempts, or the fitted labeller's id."""

    @property
    def present(self) -> frozenset[str]:
        """The patterns that were found."""
        return frozenset(label.pattern for label in self.labels)


class Labeller(Protocol):
    """Labels one text. Never raises for a text or a grader that fails; the failure is in what it returns."""

    async def __call__(self, text: str) -> Labelling: ...
