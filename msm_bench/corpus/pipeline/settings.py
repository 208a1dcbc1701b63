"""What a corpus of a language model is to be: everything that was asked for, frozen, and saved in its manifest."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from msm_bench.specs.loading import Spec

Kind = Literal["documents", "chats"]
Style = Literal["values", "rules", "preference", "deliberative"]
Voice = Literal["as_written", "does", "should", "other_does", "assistants_do", "assistants_should", "people", "impersonal"]


class Settings(BaseModel):
    """The settings of one corpus; those of the other kind are ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    n: int = Field(ge=1)
    """Rows that are wanted."""
    model_name: str = Field(min_length=1)
    """The model that the corpus will train, as the corpus calls it."""
    provider_name: str = Field(min_length=1)
    seed: int = 0
    """Of the order in which subdomains, kinds of document and domains take turns."""

    simple: bool = False
    """Documents: the plan comes from the spec's text and a reply is a document as a whole, for generators that are too small
    for the whole pipeline."""
    voice: Voice = "as_written"
    """Documents: their voice. All but the first are rewritten from the same documents."""
    critique: bool = False
    """Documents: whether each is reviewed and, where the review asks for it, revised."""
    words: int = Field(default=1800, ge=50)
    """Documents: about how many words each is to have."""
    document_tokens: int = Field(default=8000, ge=64)
    """Documents: the most tokens that one may have; one that is cut off is never kept."""
    types: int = Field(default=20, ge=1)
    """Documents: kinds of document a subdomain at most."""

    style: Style = "values"
    """Chats: how the model reasons and answers."""
    reasoning: bool = True
    """Chats: whether the rows keep the reasoning. The answers are the same either way."""
    questions_per_domain: int = Field(default=50, ge=1)
    """Chats: about how many questions a domain gives."""
    response_tokens: int = Field(default=4000, ge=64)
    """Chats: the most tokens of reasoning and answer together."""


def style_of(spec: Spec) -> Style:
    """The style that fits a spec: rules for rules, preferences without a reason for value specs, values for the rest."""
    if spec.kind == "preference":
        return "preference"
    return "rules" if spec.kind == "rules" else "values"
