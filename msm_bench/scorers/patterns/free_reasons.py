"""Exploring, first half (`proposals` is the second): the reasons in transcripts in a grader's words, before any list.

    inspect score LOG --scorer msm_bench/free_reasons --model-role grader=PROVIDER/MODEL --action append

The reasons stand in the log, so that what was paid for is kept and clustering them costs nothing.
"""

import math
from string import Template
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser
from inspect_ai.scorer import Score, Scorer, Target, scorer
from inspect_ai.solver import TaskState

from msm_bench.scorers.judge import Asked, GraderSeeker, ask_twice, fence, prompt_hash, rubric_text
from msm_bench.scorers.metrics import mean, stderr
from msm_bench.scorers.patterns.judge import WINDOW, Claims, find_quote, read_claims, without_tags
from msm_bench.scorers.patterns.text import reasoning_of

TEXTS = ("patterns_system", "patterns_reasons", "patterns_again")


@scorer(metrics={"reasons": [mean(), stderr()]})
def free_reasons() -> Scorer:
    """Lists the reasons of one transcript: `reasons` is how many, NaN where the grader failed; they stand in the metadata.

    A reason whose quote is not in the text is dropped and counted. Of a reasoning longer than a grader's window the
    beginning is read, and the metadata says so.
    """
    seek_grader = GraderSeeker("The transcripts stay without reasons (not_judged). Use --model-role grader=PROVIDER/MODEL.")

    async def score(state: TaskState, target: Target) -> Score:
        text, source = reasoning_of(state.output)
        grader = seek_grader() if text else None
        if grader is None:
            return _unscored("not_judged" if text else "target_empty")
        asked: Asked[Claims] = await ask_twice(
            grader, reasons_prompt(text[:WINDOW]), rubric_text(TEXTS[2]).strip(), read_claims
        )
        if asked.value is None:
            return _unscored(str(asked.failure), asked.text)
        found: list[dict[str, Any]] = []
        for reason, quote in asked.value:
            span = find_quote(text, quote)
            if span is not None and reason:
                found.append({"reason": reason, "quote": text[slice(*span)], "start": span[0], "end": span[1]})
        return Score(
            value={"reasons": float(len(found))},
            explanation="\n\n".join(f"**{row['reason']}**\n> {row['quote']}" for row in found) or "No reason was found.",
            metadata={
                "outcome": "labelled",
                "reasons": found,
                "dropped": len(asked.value) - len(found),
                "sees": source,
                "read": min(len(text), WINDOW),
                "judge": {"model": str(grader), "prompt": prompt_hash(*TEXTS), "attempts": asked.attempts},
            },
        )

    return score


def reasons_prompt(text: str) -> list[ChatMessage]:
    """The messages of the first asking for free reasons."""
    harmless = without_tags(text)
    body = Template(rubric_text(TEXTS[1])).substitute(mark=fence(harmless), text=harmless)
    return [ChatMessageSystem(content=rubric_text(TEXTS[0]).strip()), ChatMessageUser(content=body)]


def _unscored(outcome: str, explanation: str = "") -> Score:
    return Score(value={"reasons": math.nan}, explanation=explanation or None, reason=outcome, metadata={"outcome": outcome})
