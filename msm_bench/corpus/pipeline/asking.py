"""Asks models for the items of a stage: each until it fits, each answer on the disk before the next thing starts.

A stage is one Inspect task whose samples are the items that are still open (some of them together where there are many), so
its log shows what was asked and answered. What the items are is then read back from the store, never from the run: a run that
was killed, one that was not, and a second run over the same folder all read the same answers.

The policy: what cannot be used is asked for again with a word about what was wrong, as often as `wordings.yaml` says for its
reason, and is then given up. A failing connection or provider is tried again by Inspect and costs no attempt.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from inspect_ai import Task, eval_async
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.event import ModelEvent
from inspect_ai.log import transcript
from inspect_ai.model import GenerateConfig, Model
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import span

from msm_bench.corpus.pipeline.budget import BudgetSpent, Purse
from msm_bench.corpus.pipeline.calling import Ask, Caller, Role, Step
from msm_bench.corpus.pipeline.display import inspect_display
from msm_bench.corpus.pipeline.prices import Price
from msm_bench.corpus.pipeline.prompts import attempts_for
from msm_bench.corpus.pipeline.replies import Rejected, reading
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.corpus.pipeline.stage import StageRun
from msm_bench.corpus.pipeline.store import KEPT, Store
from msm_bench.errors import CacheError, WorkError

SAMPLES = 40
"""Samples of a stage's log from which on items share one: Inspect's work on a sample costs more than the call itself."""
MOST_TOGETHER = 25
"""Items that share a sample at most."""

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """An item's value, and the hash of the request that brought it."""

    value: T
    request: str
    model: str


class Session:
    """Everything that asking needs: the models, the spec in front of every prompt, the store, the purse.

    Args:
        store: An open store.
        spec: The spec's text, which stands first in every prompt; empty where the prompts hold what they need.
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
        self.caller = Caller(spec, models, prices, config)
        self._purse = purse
        self._config = config
        self._labels = labels
        self._progress = progress

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
            if (answer := self._replay(ask)) is not None:
                found[ask.item] = answer
        return found

    def given_up(self, asks: Sequence[Ask[Any]]) -> dict[str, str]:
        """Item to the reason of its last rejection, of all items that were asked for in vain."""
        steps = {ask.item: self._next(ask) for ask in asks}
        return {item: str(step.reason) for item, step in steps.items() if step.over}

    def _replay(self, ask: Ask[T]) -> Answer[T] | None:
        """The answer that the store holds of an item, or None where there is none."""
        step = self._next(ask)
        if not step.kept:
            return None
        call = self.store.read(step.request)
        try:
            return Answer(reading(ask.read, call.text, call.stop_reason), step.request, call.model)
        except Rejected:  # kept by an earlier version that was less strict
            return None

    def _next(self, ask: Ask[Any]) -> Step:
        attempt, reason = 1, None
        while True:
            request = self.caller.request(ask, attempt, reason)
            over = reason is not None and attempt > attempts_for(reason)
            entry = self.store.get(request)
            if over or entry is None or entry.outcome == KEPT:
                return Step(attempt, reason, request, over=over, kept=not over and entry is not None)
            reason, attempt = entry.outcome, attempt + 1

    async def _run(self, asks: Sequence[Ask[Any]]) -> None:
        stage = asks[0].stage
        # Items of one prompt share one call, so only the first of them is asked for.
        unique = list({self.caller.request(ask): ask for ask in reversed(asks)}.values())[::-1]
        run = StageRun(stage, len(unique), self._progress)
        groups = _groups(unique)
        samples = [
            Sample(id=name, input=group[0].prompt.message, metadata={"items": [ask.item for ask in group]})
            for name, group in groups.items()
        ]
        task = Task(
            name=f"corpus_{stage}",
            dataset=MemoryDataset(samples, name=stage),
            solver=self._solver(groups, run),
            metadata={**self._labels, "stage": stage},
        )
        # A batch fills only if its requests wait together; else two items a connection keep every connection busy.
        together = max(map(len, groups.values()))
        busy = max(1, 2 * (self._config.max_connections or 100) // together)
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
                max_samples=len(samples) if self._config.batch else min(len(samples), busy),
                max_connections=self._config.max_connections,
                max_retries=self._config.max_retries,
                metadata={**self._labels, "stage": stage},
            )
        # Interrupted early, Inspect returns without a log; later, with one that says so.
        status, failure = (logs[0].status, logs[0].error) if logs else ("cancelled", None)
        error = failure.message if failure else ""
        still_open = sum(not (step := self._next(ask)).kept and not step.over for ask in unique)
        run.raise_if_stopped(status, error, still_open, self.store.folder, len(self.store))

    def _solver(self, groups: dict[str, list[Ask[Any]]], run: StageRun) -> Solver:
        # A closure and no arguments, so that the log holds the solver's name and not the session.
        @solver(name="ask_until_it_fits")
        def ask_until_it_fits() -> Solver:
            async def solve(state: TaskState, generate: Generate) -> TaskState:
                group = groups[str(state.sample_id)]
                async with anyio.create_task_group() as tasks:
                    for ask in group:
                        tasks.start_soon(self._settle, ask, run, state, len(group) > 1)
                return state

            return solve

        return ask_until_it_fits()

    async def _settle(self, ask: Ask[Any], run: StageRun, state: TaskState, shared: bool) -> None:
        """Asks for one item until it fits or is given up, inside a sample of the stage's task."""
        while True:
            step = self._next(ask)
            if step.kept or step.over:
                run.count(KEPT if step.kept else str(step.reason))
                return
            if run.stopped:
                return
            messages = self.caller.messages(ask, step)
            try:
                async with self._purse.setting_aside(self.caller.most(ask, messages)) as payment:
                    started = time.monotonic()
                    if shared:
                        async with span(ask.item):
                            output, batched = await self.caller.generate(ask, messages)
                    else:
                        output, batched = await self.caller.generate(ask, messages)
                    call = self.caller.judged(ask, step, output, batched, time.monotonic() - started)
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
                if (failed := self.caller.refused(ask, step, error)) is None:
                    run.failed(error)
                    return
                await anyio.to_thread.run_sync(self.store.append, failed)
                continue
            run.failures_in_a_row = 0
            state.output = output
            if not shared:
                state.messages = [*messages, output.message]


def _groups(asks: Sequence[Ask[Any]]) -> dict[str, list[Ask[Any]]]:
    """The samples of a stage: an item each, or in a large stage some items together, named after the first."""
    size = max(1, min(MOST_TOGETHER, len(asks) // SAMPLES))
    return {asks[place].item: list(asks[place : place + size]) for place in range(0, len(asks), size)}


def _scrub_events() -> None:
    """Takes keys out of what the sample's transcript holds of failed calls, before it is written to the log."""
    for event in transcript().events:
        if isinstance(event, ModelEvent) and event.error:
            event.error = without_keys(event.error)
            event.traceback = event.traceback_ansi = None
            if event.call is not None:
                event.call.response = None
