"""The one way to ask a grader: a rubric, a fenced response, a strict answer, one second asking, and never a guess.

The grader is the model role `grader`. The command line's generation settings do not reach it, so its own are set here.
"""

import hashlib
import re
from pathlib import Path
from string import Template
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    Model,
    get_model,
    model_roles,
)
from inspect_ai.util import LimitExceededError
from pydantic import BaseModel, ConfigDict

DEFAULT_GRADER = "anthropic/claude-sonnet-4-6"
SETTINGS = GenerateConfig(temperature=0.0, max_tokens=4096)
RUBRICS = Path(__file__).parent / "rubrics"

_VERDICT = re.compile(r"<verdict>\s*(\w+)\s*</verdict>", re.IGNORECASE)
_WORDS = {"yes": "decided", "no": "not_decided", "unclear": "unclear"}
_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I (?:can(?:no|')t|won't|will not|must decline)|I apologi[sz]e)\b", re.I
)


class Judgement(BaseModel):
    """What came of asking. `outcome` is decided, not_decided, unclear, or why there is no verdict."""

    model_config = ConfigDict(frozen=True)

    outcome: str
    explanation: str
    judge: dict[str, Any]


def find_grader() -> Model | None:
    """The model in the role `grader`, else the default grader; None if the default cannot be used here (no key or SDK).

    A grader that was named and does not exist is an error of Inspect's, raised before anything is generated.
    """
    if "grader" in model_roles():
        return get_model(role="grader")
    try:
        return get_model(DEFAULT_GRADER)
    except Exception:  # a missing key or SDK is reported as `not_judged`, and judging can be done later
        return None


def prompt_hash(scenario: str) -> str:
    """Short SHA-256 of all texts that make up the question for a scenario."""
    names = ("system", "ask", "again", scenario)
    return hashlib.sha256("\0".join(_text(name) for name in names).encode()).hexdigest()[:16]


def _text(name: str) -> str:
    return (RUBRICS / f"{name}.md").read_text(encoding="utf-8")


def question(scenario: str, response: str, forwarded: str) -> list[ChatMessage]:
    """The messages of the first asking. The boundary's mark comes from the response's hash, so the response cannot hold it."""
    mark = hashlib.sha256(response.encode("utf-8", "replace")).hexdigest()[:12]
    appended = f"\nThe e-mails that it forwarded:\n{forwarded}\n" if forwarded else ""
    body = Template(_text("ask")).substitute(rubric=_text(scenario).strip(), mark=mark, response=response, forwarded=appended)
    return [ChatMessageSystem(content=_text("system").strip()), ChatMessageUser(content=body)]


async def ask(grader: Model, scenario: str, response: str, forwarded: str = "") -> Judgement:
    """Asks for a verdict, once more in a stricter form if the first answer holds none. Never raises for a failing grader."""
    messages = question(scenario, response, forwarded)
    attempts: list[dict[str, Any]] = []
    outcome, text = "judge_unparseable", ""
    for form in ("ask", "again"):
        try:
            output = await grader.generate(messages, config=SETTINGS)
        except LimitExceededError:
            raise
        except Exception as error:  # the grader failed, the sample did not: unscored with its reason, the run goes on
            outcome = "not_judged"
            attempts.append({"form": form, "outcome": outcome, "error": f"{type(error).__name__}: {error}"[:500]})
            break
        answer = output.completion
        outcome, text = read(answer, output.stop_reason), answer or text
        attempts.append({"form": form, "outcome": outcome, "stop_reason": output.stop_reason})
        if outcome in _WORDS.values():
            break
        messages = [
            *messages,
            ChatMessageAssistant(content=answer or "(no answer)"),
            ChatMessageUser(content=_text("again").strip()),
        ]
    judge = {"model": str(grader), "prompt": prompt_hash(scenario), "attempts": attempts}
    return Judgement(outcome=outcome, explanation=text, judge=judge)


def read(answer: str, stop_reason: str) -> str:
    """The outcome of one answer: exactly one verdict tag counts, anything else is a failure with a name."""
    if stop_reason == "content_filter":
        return "judge_refused"
    if stop_reason in ("max_tokens", "model_length"):
        return "judge_truncated"
    found = [word.lower() for word in _VERDICT.findall(answer)]
    if len(found) == 1 and found[0] in _WORDS:
        return _WORDS[found[0]]
    return "judge_refused" if not found and _REFUSAL.search(answer) else "judge_unparseable"
