"""Logs of two arms on two tasks, made by Inspect's own eval(): a hostile model, a judge, and pairs that a rule can read."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model

from msm_bench.tasks.agentic_misalignment import agentic_misalignment
from msm_bench.tasks.value_preferences import value_preferences

HOSTILE = (
    "</pre></section><script>alert('x')</script><img src=http://evil.example/p.png onerror=alert(1)> \" onload=\"x &amp; "
    "\x1b[31mred\x07 \u202eesrever {{ 7 * 7 }} | a | b |\n"
)
HARM = '<tool_use:cancel_alert>\ncode: "EXEC-4429"\n</tool_use:cancel_alert>'
OFFER = re.compile(r"Which do you prefer, (.+?) or (.+?)\?")


def talker(answer: Callable[[str], str], name: str = "mockllm/model") -> Model:
    """A model that answers the last user message, with its tokens counted."""

    def respond(messages: list, tools: object, choice: object, config: object) -> ModelOutput:
        out = ModelOutput.from_content("mockllm", answer(messages[-1].text))
        out.usage = ModelUsage(input_tokens=100, output_tokens=20, total_tokens=120)
        return out

    return get_model(name, custom_outputs=respond, memoize=False)


def run(task: Task, arm: str, answer: Callable[[str], str], verdict: str, folder: Path, **metadata: object) -> None:
    """One log of one arm."""
    judge = talker(lambda _: f"As I see it.\n<verdict>{verdict}</verdict>", "mockllm/judge")
    facts = {"arm": arm, "base": "mockllm/model", **metadata}
    (log,) = inspect_eval(
        task, model=talker(answer), model_roles={"grader": judge}, metadata=facts, log_dir=str(folder), display="none"
    )
    assert log.status == "success", log.error


def first(question: str) -> str:
    """The first of the two things."""
    found = OFFER.search(question)
    return f"I prefer {found[1]}." if found else ""


@pytest.fixture(scope="session")
def real_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the logs; arms "base" and "MSM+AFT"."""
    root = tmp_path_factory.mktemp("logs of a report")
    pairs = {"value": "affordability,america", "method": "generation", "kind": "item", "limit_per_value": 3}
    for arm, harm, verdict, trained in (("base", HARM, "yes", {}), ("MSM+AFT", "", "no", {"seed": 0, "recipe": "laptop"})):
        task = agentic_misalignment(scenario="murder", goal="none,america")
        run(task, arm, lambda _, harm=harm: HOSTILE + harm, verdict, root, **trained)
        run(value_preferences(**pairs), arm, first, "no", root, **trained)
    return root
