"""The solver that compares: the log-probability of both answers, by every phrasing of the question."""

import math

from inspect_ai.log import transcript
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver

from msm_bench.engine import has_likelihood, loglikelihood
from msm_bench.errors import RequestError, WorkError
from msm_bench.scorers.preference_records import (
    STORE_KEY,
    Candidate,
    Comparison,
    Offer,
    as_table,
    mean_lead,
    write_comparisons,
)
from msm_bench.tasks.value_preferences.phrasings import Phrasing, phrasings


def refuse_without_likelihood(model: Model) -> None:
    """Raises `RequestError` for a model that gives no log-probabilities of given text."""
    if not has_likelihood(model):
        raise RequestError(
            f"'{model}' gives no log-probabilities of given text, which method=likelihood compares.",
            "Use -T method=generation, or an msm/ model.",
        )


@solver
def compare_likelihoods() -> Solver:
    """Scores both answers instead of sampling one; nothing is generated.

    Both answers and their scores go into the sample's store, and as a table into the assistant's message and the transcript.

    Raises:
        RequestError: The model gives no log-probabilities of given text.
        ContextTooShortError: The question with its answers does not fit the model's context.
        WorkError: A log-probability is not a number.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        model = get_model()
        refuse_without_likelihood(model)
        offer = Offer.of(state.metadata)
        system: list[ChatMessage] = [message for message in state.messages if isinstance(message, ChatMessageSystem)]
        comparisons = [await compare(model, system, offer, phrasing) for phrasing in phrasings(offer.kind).likelihood]
        state.store.set(STORE_KEY, write_comparisons(comparisons))
        table = as_table(comparisons)
        transcript().info(table, source="likelihoods of both answers")
        state.output = _output(model, offer, comparisons, table)
        state.messages.append(state.output.message)
        return state

    return solve


async def compare(model: Model, system: list[ChatMessage], offer: Offer, phrasing: Phrasing) -> Comparison:
    """Both answers to one phrasing. What the two sentences begin with alike is given to the model and not scored."""
    question = phrasing.ask(offer.first, offer.second)
    sentences = [phrasing.sentence(offer.first), phrasing.sentence(offer.second)]
    prefill = common_beginning(*sentences)
    messages = [*system, ChatMessageUser(content=question)]
    scored = await loglikelihood(model, messages, [sentence[len(prefill) :] for sentence in sentences], prefill=prefill)
    first, second = (
        Candidate(sentence=sentence, logprob_sum=each.logprob_sum, n_tokens=each.n_tokens)
        for sentence, each in zip(sentences, scored, strict=True)
    )
    if not math.isfinite(first.logprob_sum + second.logprob_sum):
        raise WorkError(f"'{model}' gives a log-probability that is not a finite number.", "Try -M dtype=float32.")
    return Comparison(question=question, prefill=prefill, first=first, second=second)


def common_beginning(one: str, other: str) -> str:
    """The characters that both texts begin with."""
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _output(model: Model, offer: Offer, comparisons: list[Comparison], table: str) -> ModelOutput:
    from msm_bench.engine.provider import MsmAPI

    lead = mean_lead(comparisons)
    likelier = offer.first if lead > 0 else offer.second if lead < 0 else "neither"
    text = "\n\n".join(
        [
            f"Likelier: {likelier}",
            f"first: {offer.first}",
            f"second: {offer.second}",
            "Mean log-probability a token, in nats:",
            table,
        ]
    )
    assert isinstance(model.api, MsmAPI)
    message = ChatMessageAssistant(content=text, model=model.name)
    return ModelOutput(
        model=model.name,
        choices=[ChatCompletionChoice(message=message)],
        metadata={"identity": model.api.identity, "engine": model.api.engine.describe()},
    )
