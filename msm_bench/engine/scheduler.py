"""The thread that owns a model: it gathers requests, forms batches, draws tokens and hands results back."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from msm_bench.engine.memory import ran_out
from msm_bench.engine.rows import Ending, Generation, Row, Runner, Scored, ScoreRequest
from msm_bench.engine.sampling import Sampling, next_tokens, on_device, token_logprobs
from msm_bench.engine.text import Detokenizer
from msm_bench.errors import WorkError

logger = logging.getLogger(__name__)

# Requests of one evaluation arrive in a burst, each as soon as its prompt is in tokens; those that come within this of each
# other start together. A CPU needs longer for the tokens of a prompt, and much longer for computing it.
_GATHER_SECONDS, _GATHER_AT_MOST = {"cpu": 0.03}, {"cpu": 0.3}
_GATHER_SECONDS_ELSEWHERE, _GATHER_AT_MOST_ELSEWHERE = 0.005, 0.1
# Enough to fill batches; not so many that running samples and finished scores wait long.
_SCORED_AT_ONCE = 256


T = TypeVar("T")


@dataclass(eq=False)
class Call:
    """Work for the runner's thread."""

    work: Callable[[], Any]
    future: "Future[Any]"

    def run(self) -> None:
        """Do it and hand over its result or its error."""
        try:
            self.future.set_result(self.work())
        except Exception as error:
            self.future.set_exception(error)


class Drawn:
    """Tokens on their way from the device to their rows.

    Args:
        rows: Those that a token was drawn for.
        tokens: The tokens of all rows of the runner [R], anything for ended ones.
        live: Which of the runner's rows `rows` are.
    """

    def __init__(self, rows: list[Row], tokens: torch.Tensor, live: list[int]) -> None:
        self.rows = rows
        self.tokens = tokens
        self._live = live
        self._event: Any = None
        self._copy = tokens
        if tokens.device.type == "cuda":
            # Copied now, so that reading does not wait for what the card is asked to do next.
            self._copy = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._copy.copy_(tokens, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> list[int]:
        """The token of each of `rows`."""
        if self._event is not None:
            self._event.synchronize()
        tokens: list[int] = self._copy.tolist()
        return [tokens[index] for index in self._live]


class Scheduler:
    """Runs requests on a runner in a thread of its own, which starts with the first request.

    Args:
        runner: Does the forward passes.
        ends: Tokens that end a generation.
        detokenizer: For finding stop texts.
    """

    def __init__(self, runner: Runner, ends: frozenset[int], detokenizer: Detokenizer) -> None:
        self._runner = runner
        self._ends = ends
        self._detokenizer = detokenizer
        self._inbox: queue.SimpleQueue[Row | ScoreRequest | Call | None] = queue.SimpleQueue()
        self._waiting: list[Row] = []
        self._scoring: list[ScoreRequest] = []
        self._full = False  # no row fits until one has ended
        self._drawn: Drawn | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def generate(self, prompt: Sequence[int], sampling: Sampling, adapter: int = 0) -> "Future[Generation]":
        """Ask for one sample; cancelling the future gives it up."""
        future: Future[Generation] = Future()
        self._put(Row(tuple(prompt), sampling, future, adapter=adapter))
        return future

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: int = 0) -> "Future[list[Scored]]":
        """Ask for the log-probabilities of continuations, each of at least one token."""
        future: Future[list[Scored]] = Future()
        self._put(ScoreRequest(tuple(prompt), tuple(tuple(tokens) for tokens in continuations), future, adapter))
        return future

    def call(self, work: Callable[[], T]) -> T:
        """Do something in the runner's thread between two of its rounds, and wait for it."""
        future: Future[T] = Future()

        def between() -> T:
            self._take_in()
            return work()

        self._put(Call(between, future))
        return future.result()

    def close(self, patience: float | None = None) -> None:
        """End the thread; requests that are not finished are cancelled.

        Args:
            patience: Seconds to wait for the forward pass under way; None waits for its end.
        """
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            thread.join(patience)

    def _put(self, request: Row | ScoreRequest | Call) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # A daemon, so that an interrupted program does not wait for a generation to end.
                self._thread = threading.Thread(target=self._run, name="msm-engine", daemon=True)
                self._thread.start()
        self._inbox.put(request)

    def _run(self) -> None:
        while self._collect():
            failure: Exception | None = None
            try:
                self._turn()
            except Exception as error:
                # Without its frames, which would keep the tensors of the failed pass alive.
                failure = error.with_traceback(None) if ran_out(error) else error
            if failure is not None:
                self._recover(failure)
        for request in self._all():
            request.future.cancel()
        self._waiting, self._scoring, self._drawn = [], [], None
        self._runner.reset(lower=False)

    def _collect(self) -> bool:
        """Take in what has arrived, waiting for it when there is nothing to do; False when the thread is to end."""
        idle = not (self._runner.rows or self._waiting or self._scoring)
        kind = self._runner.device.type
        between = _GATHER_SECONDS.get(kind, _GATHER_SECONDS_ELSEWHERE)
        at_most = _GATHER_AT_MOST.get(kind, _GATHER_AT_MOST_ELSEWHERE)
        begun = time.monotonic()
        while True:
            try:
                if idle:
                    request = self._inbox.get()
                elif self._runner.rows or time.monotonic() - begun > at_most:
                    request = self._inbox.get_nowait()
                else:
                    request = self._inbox.get(timeout=between)
            except queue.Empty:
                return True
            if request is None:
                return False
            if idle:
                idle, begun = False, time.monotonic()
            self._sort_in(request)

    def _sort_in(self, request: Row | ScoreRequest | Call) -> None:
        if isinstance(request, Call):
            request.run()
        elif isinstance(request, Row):
            self._waiting.append(request)
        else:
            self._scoring.append(request)

    def _turn(self) -> None:
        """One round: a batch of scoring, new rows, one token for every row."""
        runner = self._runner
        for row in runner.rows:
            row.ended = row.ended or row.future.cancelled()
        if self._drawn is not None and self._goes_on():
            # The card computes the next tokens while the last ones are looked at.
            logits = runner.step(self._drawn.tokens)
            self._take_in()
            self._draw(logits)
            return
        self._take_in()
        self._scoring = [request for request in self._scoring if not request.future.cancelled()]
        if self._scoring:
            # Sorted, so that a batch holds prompts that begin alike.
            self._scoring.sort(key=lambda request: (request.adapter, request.prompt))
            results = runner.score(self._scoring[:_SCORED_AT_ONCE])
            for request, result in zip(self._scoring, results, strict=False):
                _deliver(request.future, result)
            del self._scoring[: len(results)]
        self._waiting = [row for row in self._waiting if not row.future.cancelled()]
        if runner.settle(hurry=bool(self._waiting)) or not runner.rows:
            self._full = False
        if self._waiting and not self._full:
            self._waiting = _equal_together(self._waiting, shortest_first=not runner.rows)
            admitted = runner.admit(self._waiting)
            del self._waiting[:admitted]
            self._full = admitted == 0
        if runner.rows and (back := runner.withdraw()):
            self._waiting[:0] = back
            self._full = True
        if runner.rows:
            self._draw(runner.step())
            if not runner.undisturbed(hurry=bool(self._waiting)):
                self._take_in()

    def _goes_on(self) -> bool:
        """Whether nothing is to be done before the next step, and that step is worth something."""
        if self._scoring or (self._waiting and not self._full):
            return False
        more = any(not row.ended and len(row.tokens) + 1 < row.sampling.max_tokens for row in self._runner.rows)
        return more and self._runner.undisturbed(hurry=bool(self._waiting))

    def _draw(self, logits: torch.Tensor) -> None:
        """Draw the next token of each live row; `_take_in` hands them over."""
        live = [index for index, row in enumerate(self._runner.rows) if not row.ended]
        if not live:
            return
        rows = [self._runner.rows[index] for index in live]
        where = on_device(live, logits, torch.int64) if len(live) < len(logits) else None
        logits = logits if where is None else logits[where]
        tokens = next_tokens(logits, [row.sampling for row in rows], [row.noise for row in rows], [row.counts for row in rows])
        asked = [index for index, row in enumerate(rows) if row.sampling.top_logprobs is not None]
        if asked:
            most = max(rows[index].sampling.top_logprobs or 0 for index in asked)
            found = token_logprobs(logits[asked], tokens[asked].tolist(), most)
            for index, logprob in zip(asked, found, strict=True):
                wanted = rows[index].sampling.top_logprobs
                rows[index].logprobs.append(replace(logprob, top=logprob.top[:wanted]))
        if where is not None:
            tokens = tokens.new_zeros(len(self._runner.rows)).index_copy_(0, where, tokens)
        self._drawn = Drawn(rows, tokens, live)

    def _take_in(self) -> None:
        """Give drawn tokens to their rows, and finished rows to those who asked."""
        drawn, self._drawn = self._drawn, None
        if drawn is None:
            return
        for row, token in zip(drawn.rows, drawn.read(), strict=True):
            row.tokens.append(token)
            row.counts[token] += 1
            self._end_if_done(row, token)

    def _end_if_done(self, row: Row, token: int) -> None:
        sampling = row.sampling
        ending: Ending | None = None
        cut = None
        over = token in self._ends or token in sampling.ends
        if over:
            ending = "stop"
        elif sampling.stop:
            cut = self._detokenizer.cut_at_stop(row.tokens, sampling.stop)
            ending = None if cut is None else "stop"
        if ending is None and len(row.tokens) >= sampling.max_tokens:
            ending = "model_length" if sampling.context_bound else "max_tokens"
        if ending is None:
            return
        row.ended = True
        kept = row.tokens[:-1] if over else row.tokens
        _deliver(
            row.future,
            Generation(
                tokens=tuple(row.tokens),
                text=self._detokenizer.text(kept) if cut is None else cut,
                ending=ending,
                cached=row.cached or 0,
                logprobs=row.logprobs if sampling.top_logprobs is not None else None,
                seconds=time.monotonic() - row.arrived,
            ),
        )

    def _recover(self, failure: Exception) -> None:
        """After running out of memory go on with less; after any other error fail what is under way."""
        if ran_out(failure):
            self._take_in()
        self._drawn = None
        active = [row for row in self._runner.rows if not row.ended]
        self._full = False
        if not ran_out(failure):
            logger.error("The engine failed: %s", failure, exc_info=failure)
            self._fail(active, failure)
            self._runner.reset(lower=False)
        elif self._runner.reset(lower=True):
            self._waiting[:0] = active
        else:
            problem = "The model runs out of memory even on one request at a time."
            mend = "Use shorter prompts, fewer tokens (--max-tokens), a smaller model or -M dtype=bfloat16."
            self._fail(active, WorkError(problem, mend))

    def _fail(self, active: Sequence[Row], failure: Exception) -> None:
        requests: list[Row | ScoreRequest] = [*active, *self._waiting, *self._scoring]
        self._waiting, self._scoring = [], []
        for request in requests:
            with suppress(InvalidStateError):
                request.future.set_exception(failure)

    def _all(self) -> list[Row | ScoreRequest]:
        while not self._inbox.empty():
            request = self._inbox.get()
            if request is not None:
                self._sort_in(request)
        return [*self._runner.rows, *self._waiting, *self._scoring]


def _equal_together(rows: Sequence[Row], shortest_first: bool) -> list[Row]:
    """Rows of one prompt side by side, so that a batch shares what it can; prompts in order of their first row.

    With `shortest_first` the shortest prompt comes before the others: where nothing runs yet, its tokens are there soonest.
    """
    groups: dict[tuple[int, tuple[int, ...]], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.adapter, row.prompt), []).append(row)
    ordered = list(groups.values())
    if shortest_first:
        first = min(range(len(ordered)), key=lambda index: len(ordered[index][0].prompt))
        ordered.insert(0, ordered.pop(first))
    return [row for group in ordered for row in group]


def _deliver(future: "Future[Any]", result: object) -> None:
    with suppress(InvalidStateError):  # cancelled in this moment
        future.set_result(result)
