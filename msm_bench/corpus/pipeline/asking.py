"""Asks models for the items of a stage: each until it fits, each answer on the disk before the next thing starts.

A stage is one Inspect task whose samples are the items that are still open, so its log shows what was asked and answered.
What the items are is then read back from the store, never from the run: a run that was killed, one that was not, and a
second run over the same folder all read the same answers.

The policy: what cannot be used is asked for again with a word about what was wrong, as often as `wordings.yaml` says for its
reason, and is then given up. A failing connection or provider is tried again by Inspect and costs no attempt.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import anyio
import anyio.to_thread
from inspect_ai import Task, eval_async
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.event import ModelEvent
from inspect_ai.log import transcript
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver

from msm_bench.artefacts import sha256_of_value
from msm_bench.corpus.pipeline.batches import key_of
from msm_bench.corpus.pipeline.budget import BudgetSpent, Purse
from msm_bench.corpus.pipeline.display import inspect_display
from msm_bench.corpus.pipeline.prices import Price, Usage
from msm_bench.corpus.pipeline.prompts import Prompt, asked_again, attempts_for
from msm_bench.corpus.pipeline.replies import Rejected, reading
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.stage import StageRun, status_of
from msm_bench.corpus.pipeline.store import KEPT, Call, Store
from msm_bench.errors import CacheError, WorkError

Role = Literal["generator", "grader"]
T = TypeVar("T")

_REFUSED_ITEM = {400, 413, 422}  # statuses that say that this one request is wrong


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One item of a stage.

    `read` makes the item's value from the text of an answer that ended by itself and raises `Rejected` where it does not fit;
    it must give the same for the same text.
    """

    stage: str
    item: str
    prompt: Prompt
    max_tokens: int
    read: Callable[[str], T]
    role: Role = "generator"


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An item's value, and the hash of the request that brought it."""

    value: T
    request: str
    model: str


@dataclass(frozen=True)
class _Step:
    """Where an item stands: the next request, or the one that was kept, or that it is over."""

    attempt: int
    reason: str | None
    """Of the rejection before this attempt."""
    request: str
    over: bool
    kept: bool


class Session:
    """Everything that asking needs: the models, the spec in front of every prompt, the store, the purse.

    Args:
        store: An open store.
        spec: The spec's text, which stands first in every prompt.
        models: The model of each role.
        prices: The price of each role's model; None where it is not known.
        purse: The budget.
        config: Settings of every call.
        labels: What the logs' metadata says about the run.
        progress: Called with a stage's name, the items done and all items.
    """

    def __init__(
        self,
        store: Store,
        spec: str,
        models: dict[Role, Model],
        prices: dict[Role, Price | None],
        purse: Purse,
        config: GenerateConfig,
        labels: dict[str, Any],
        progress: Callable[[str, int, int], None] = lambda stage, done, of: None,
    ) -> None:
        self.store = store
        self.models = models
        self._spec = spec
        self._prices = prices
        self._purse = purse
        self._config = config
        self._labels = labels
        self._progress = progress
        self.recovered: dict[str, ModelOutput] = {}
        """Answers of batches of earlier runs, by `key_of` their request."""
        self._names: dict[Role, str] = {role: str(model) for role, model in models.items()}
        self._settings = config.model_dump(include={"temperature", "top_p", "reasoning_effort", "effort"}, exclude_none=True)

    async def answers(self, asks: Sequence[Ask[T]]) -> dict[str, Answer[T]]:
        """The items that fit, in the order of the asks. Those that were given up are missing.

        Raises:
            RequestError: the provider refuses the key or does not know the model.
            WorkError: the budget is spent, the provider keeps failing, or too little fits.
        """
        still_open = [ask for ask in asks if not (step := self._next(ask)).kept and not step.over]
        if still_open:
            await self._run(still_open)
        found: dict[str, Answer[T]] = {}
        for ask in asks:
            state = self._replay(ask)
            if isinstance(state, Answer):
                found[ask.item] = state
        return found

    def given_up(self, asks: Sequence[Ask[Any]]) -> dict[str, str]:
        """Item to the reason of its last rejection, of all items that were asked for in vain."""
        steps = {ask.item: self._next(ask) for ask in asks}
        return {item: str(step.reason) for item, step in steps.items() if step.over}

    def request(self, ask: Ask[Any], attempt: int = 1, reason: str | None = None) -> str:
        """The hash of a request: of the model, all that is sent, and the settings that change what comes back."""
        sent = [self._spec, ask.prompt.instruction, self._message(ask, attempt, reason)]
        return sha256_of_value([self._names[ask.role], sent, ask.max_tokens, self._settings])

    def _message(self, ask: Ask[Any], attempt: int, reason: str | None) -> str:
        return ask.prompt.message + (asked_again(reason, attempt) if reason else "")

    def _replay(self, ask: Ask[T]) -> "Answer[T] | str | None":
        """What the store holds of an item: its answer, the reason why it was given up, or None while it is open."""
        step = self._next(ask)
        if not step.kept:
            return step.reason if step.over else None
        call = self.store.read(step.request)
        try:
            return Answer(reading(ask.read, call.text, call.stop_reason), step.request, call.model)
        except Rejected as rejected:  # kept by an earlier version that was less strict
            return rejected.reason

    def _next(self, ask: Ask[Any]) -> "_Step":
        attempt, reason = 1, None
        while True:
            request = self.request(ask, attempt, reason)
            over = reason is not None and attempt > attempts_for(reason)
            entry = self.store.get(request)
            if over or entry is None or entry.outcome == KEPT:
                return _Step(attempt, reason, request, over=over, kept=not over and entry is not None)
            reason, attempt = entry.outcome, attempt + 1

    async def _run(self, asks: Sequence[Ask[Any]]) -> None:
        stage = asks[0].stage
        # Items of one prompt share one call, so only the first of them is asked for.
        unique = {self.request(ask): ask for ask in reversed(asks)}
        by_item = {ask.item: ask for ask in reversed(unique.values())}
        run = StageRun(stage, len(by_item), self._progress)
        samples = [Sample(id=item, input=ask.prompt.message, metadata={"stage": stage}) for item, ask in by_item.items()]
        task = Task(
            name=f"corpus_{stage}",
            dataset=MemoryDataset(samples, name=stage),
            solver=self._solver(by_item, run),
            metadata={**self._labels, "stage": stage},
        )
        batch = bool(self._config.batch)
        connections = self._config.max_connections or 100
        with inspect_display("none"):
            logs = await eval_async(
                task,
                model=self.models["generator"],
                model_roles={role: model for role, model in self.models.items()},
                log_dir=str(Path(self.store.folder) / "logs"),
                log_format="eval",
                log_realtime=False,
                log_model_api=False,
                log_refusals=False,
                score=False,
                fail_on_error=False,
                # A batch fills only if its requests wait together; else two items a connection keep every connection busy.
                max_samples=len(samples) if batch else min(len(samples), 2 * connections),
                max_connections=self._config.max_connections,
                max_retries=self._config.max_retries,
                metadata={**self._labels, "stage": stage},
            )
        error = logs[0].error.message if logs[0].error else ""
        still_open = sum(not (step := self._next(ask)).kept and not step.over for ask in by_item.values())
        run.raise_if_stopped(logs[0].status, error, still_open, self.store.folder, len(self.store))

    def _solver(self, by_item: dict[str, Ask[Any]], run: StageRun) -> Solver:
        # A closure and no arguments, so that the log holds the solver's name and not the session.
        @solver(name="ask_until_it_fits")
        def ask_until_it_fits() -> Solver:
            async def solve(state: TaskState, generate: Generate) -> TaskState:
                await self._settle(by_item[str(state.sample_id)], run, state)
                return state

            return solve

        return ask_until_it_fits()

    async def _settle(self, ask: Ask[Any], run: StageRun, state: TaskState) -> None:
        """Asks for one item until it fits or is given up, inside a sample of the stage's task."""
        while True:
            step = self._next(ask)
            if step.kept or step.over:
                run.count(KEPT if step.kept else str(step.reason))
                return
            if run.stopped:
                return
            messages = self._messages(ask, step)
            try:
                async with self._purse.setting_aside(self._most(ask, messages)) as payment:
                    started = time.monotonic()
                    output, batched = await self._generate(ask, messages)
                    call = self._judged(ask, step, output, batched, time.monotonic() - started)
                    payment.dollars = call.dollars or 0.0
                    await anyio.to_thread.run_sync(self.store.append, call)
            except BudgetSpent:
                run.stop(WorkError, f"The budget of ${self._purse.budget:g} is spent (${self._purse.spent:.2f})", "budget")
                return
            except CacheError as error:
                run.stop(WorkError, error.problem.removesuffix("."), "disk")
                return
            except Exception as error:  # a provider's failure after all retries; whatever it is, the item stays open
                _scrub_events()
                if (failed := self._refused(ask, step, error)) is None:
                    run.failed(error)
                    return
                await anyio.to_thread.run_sync(self.store.append, failed)
                continue
            run.failures_in_a_row = 0
            state.messages = [*messages, output.message]
            state.output = output

    def _messages(self, ask: Ask[Any], step: "_Step") -> list[ChatMessage]:
        # The spec and the instruction are blocks of their own with a mark behind each: the spec is cached for all stages, both
        # together for this one, and what differs is never written to the cache.
        parts = [ContentText(text=part, cache_breakpoint=True) for part in (self._spec, ask.prompt.instruction)]
        return [ChatMessageSystem(content=[*parts]), ChatMessageUser(content=self._message(ask, step.attempt, step.reason))]

    async def _generate(self, ask: Ask[Any], messages: list[ChatMessage]) -> tuple[ModelOutput, bool]:
        """The answer, and whether it came at the price of a batch."""
        texts = [self._spec, ask.prompt.instruction, messages[-1].text]
        if (found := self.recovered.pop(key_of(self._names[ask.role], texts, ask.max_tokens), None)) is not None:
            return found, True
        config = self._config.merge(GenerateConfig(max_tokens=ask.max_tokens))
        if config.reasoning_effort is None and self._names[ask.role].startswith("anthropic/"):
            # Newer ones think unless told not to, which would be paid for and would take from the tokens of the text.
            config.reasoning_effort = "none"
        return await get_model(role=ask.role).generate(messages, config=config), bool(config.batch)

    def _judged(self, ask: Ask[Any], step: "_Step", output: ModelOutput, batched: bool, seconds: float) -> Call:
        outcome, detail = KEPT, ""
        try:
            reading(ask.read, output.completion, str(output.stop_reason))
        except Rejected as rejected:
            outcome, detail = rejected.reason, rejected.detail
        usage = _usage(output)
        price = self._prices[ask.role]
        dollars = None if usage is None or price is None else price.dollars(usage, batch=batched)
        return self._call(
            ask,
            step,
            outcome=outcome,
            detail=detail,
            text=output.completion,
            stop_reason=str(output.stop_reason),
            usage=usage,
            dollars=dollars,
            seconds=round(seconds, 3),
        )

    def _refused(self, ask: Ask[Any], step: "_Step", error: Exception) -> Call | None:
        """The call of a request that the provider will never answer, or None where the failure may pass."""
        if status_of(error) not in _REFUSED_ITEM:
            return None
        detail = str(error.__cause__ or error)
        nothing: dict[str, Any] = {"text": "", "stop_reason": "unknown", "usage": None, "dollars": None, "seconds": 0.0}
        return self._call(ask, step, outcome="bad_request", detail=detail, **nothing)

    def _call(self, ask: Ask[Any], step: "_Step", detail: str, **fields: Any) -> Call:
        return Call(
            request=step.request,
            stage=ask.stage,
            item=ask.item,
            attempt=step.attempt,
            model=self._names[ask.role],
            detail=without_keys(detail)[:500],
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            **fields,
        )

    def _most(self, ask: Ask[Any], messages: list[ChatMessage]) -> float:
        """Dollars that a call can cost at most. Two characters a token is more tokens than any tokenizer makes of prose."""
        price = self._prices[ask.role]
        if price is None:
            return 0.0
        prompt = sum(len(message.text) for message in messages) // 2
        usage = Usage(cache_write=prompt, output=ask.max_tokens)
        return price.dollars(usage, batch=bool(self._config.batch))


def _usage(output: ModelOutput) -> Usage | None:
    found = output.usage
    if found is None:
        return None
    return Usage(
        input=found.input_tokens,
        output=found.output_tokens,
        cache_read=found.input_tokens_cache_read or 0,
        cache_write=found.input_tokens_cache_write or 0,
    )


def _scrub_events() -> None:
    """Takes keys out of what the sample's transcript holds of failed calls, before it is written to the log."""
    for event in transcript().events:
        if isinstance(event, ModelEvent) and event.error:
            event.error = without_keys(event.error)
            event.traceback = event.traceback_ansi = None
            if event.call is not None:
                event.call.response = None
