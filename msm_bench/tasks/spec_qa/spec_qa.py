"""Spec QA: 154 open questions about what a model would do and why, rated 1 to 10 against a spec (arXiv 2605.02087, D.2).

    inspect eval msm_bench/spec_qa --model msm/smollm2-135m --model-role grader=anthropic/claude-sonnet-4-6
    inspect eval tasks/spec_qa --model openai/gpt-4o -T spec=rules -T dimension=corrigibility,transparency
    inspect score LOG --scorer msm_bench/spec_rating -S against=general --model-role grader=anthropic/claude-sonnet-4-6

The paper asks 151 questions of its own over the same seven dimensions, with a judge prompt that was not released in full: the
questions, the rubric's wording and so the ratings here are not comparable with its figures. Ratings saturate where behaviour
does not, so a high mean says that a model can talk like its spec, and nothing about what it does.
"""

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.solver import generate

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.scorers.rubric import RatedSpec, spec_rating
from msm_bench.specs import list_specs
from msm_bench.tasks.arguments import known_arguments
from msm_bench.tasks.spec_qa.questions import DIMENSIONS, Question, load_questions, questions_sha256

VERSION = "1-A"
"""N-X: N changes when scores stop being comparable, X when only the interface changes."""


@task
@known_arguments
def spec_qa(
    spec: str = "philosophy",
    dimension: str | list[str] = "all",
    agent_name: str = "Qwen",
    provider_name: str = "the developer",
    in_context: bool = False,
) -> Task:
    """The questions of all seven dimensions, or of some, each asked in one user message without a system prompt.

    Args:
        spec: What the grader rates against: the name of a shipped spec (a control only when it is named) or a folder.
        dimension: "all", one, or a list.
        agent_name: The model's name in the spec's text.
        provider_name: Who made the model, in the spec's text.
        in_context: Give the model the same spec as its system prompt (the in-context ceiling).
    """
    if not isinstance(spec, str) or not spec:
        raise UnknownNameError("spec", spec, list_specs())
    if not isinstance(in_context, bool):
        raise RequestError(f"in_context is '{in_context}', not a truth value.", "Use -T in_context=true or false.")
    for name, text in (("agent_name", agent_name), ("provider_name", provider_name)):
        if not isinstance(text, str) or not text.strip():
            raise RequestError(f"{name} is '{text}', not a name.", f"Use -T {name}=NAME with at least one letter.")
    rated = RatedSpec.load(spec, agent_name, provider_name)
    questions = [question for name in _chosen(dimension) for question in load_questions(name)]
    return Task(
        dataset=MemoryDataset([_sample(question, rated, in_context) for question in questions], name="spec_qa"),
        solver=generate(tool_calls="none"),
        scorer=spec_rating(),
        config=GenerateConfig(temperature=0.7, max_tokens=4096),
        version=VERSION,
        metadata={
            "task_version": VERSION,
            "questions_sha256": questions_sha256(),
            "spec": rated.name,
            "spec_sha256": rated.sha256,
            "in_context": in_context,
        },
    )


def _chosen(given: str | list[str]) -> list[str]:
    names = given.split(",") if isinstance(given, str) else list(given)
    names = [str(name).strip() for name in names]
    if names == ["all"]:
        return list(DIMENSIONS)
    for name in names:
        if name not in DIMENSIONS:
            raise UnknownNameError("dimension", name, ("all", *DIMENSIONS))
    if not names:
        raise RequestError("No dimension is named.", f"Use all, or some of: {', '.join(DIMENSIONS)}.")
    return list(dict.fromkeys(names))


def _sample(question: Question, rated: RatedSpec, in_context: bool) -> Sample:
    messages: list[ChatMessage] = [ChatMessageUser(content=question.text)]
    if in_context:
        messages.insert(0, ChatMessageSystem(content=rated.text))
    return Sample(
        id=question.id,
        input=messages,
        metadata={
            "dimension": question.dimension,
            "form": question.form,
            "in_context": in_context,
            "spec": rated.model_dump(mode="json"),
        },
    )
