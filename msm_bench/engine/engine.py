"""A loaded model with its scheduler, and the table of those that are in use in this process."""

import atexit
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
import transformers

from msm_bench.checkpoints import ResolvedModel
from msm_bench.engine import memory
from msm_bench.engine.attention import ATTENTION_NAME
from msm_bench.engine.loading import Loaded, load, probe_tokens
from msm_bench.engine.padded import PaddedRunner
from msm_bench.engine.rows import Generation, Runner, Scored
from msm_bench.engine.sampling import Sampling
from msm_bench.engine.scheduler import Scheduler
from msm_bench.engine.settings import Settings
from msm_bench.engine.shared import SharedRunner
from msm_bench.engine.text import Detokenizer
from msm_bench.errors import ContextTooShortError, RequestError

logger = logging.getLogger(__name__)

_MAX_ROWS = {"cuda": 256, "cpu": 128, "mps": 32}
_CHUNK = {"cuda": 4096, "cpu": 1024, "mps": 1024}


class Engine:
    """Samples from one model and scores text under it; requests may come from any thread.

    Args:
        loaded: The model.
        settings: How it is to run.
    """

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self.loaded = loaded
        self.context_length = loaded.context_length
        self.detokenizer = Detokenizer(loaded.tokenizer)
        self._runner = make_runner(loaded, settings)
        self._scheduler = Scheduler(self._runner, loaded.ends, self.detokenizer)

    @property
    def kind(self) -> str:
        """How the model runs: "shared" or "padded"."""
        return self._runner.kind

    def describe(self) -> dict[str, str]:
        """How the model runs, for the log."""
        loaded = self.loaded
        return {
            "attention": self.kind,
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "device": loaded.device.type,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> "Future[Generation]":
        """Ask for one sample.

        Raises:
            ContextTooShortError: The prompt leaves no room for one token.
            RequestError: A bias for a token that does not exist.
        """
        words = self._runner.vocabulary
        for token in sampling.logit_bias:
            if not 0 <= token < words:
                raise RequestError(f"logit_bias names the token {token}.", f"The model's tokens are 0 to {words - 1}.")
        self._check(len(prompt) + 1)
        return self._scheduler.generate(prompt, sampling)

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> "Future[list[Scored]]":
        """Ask for the log-probability of each continuation after the prompt.

        Raises:
            ContextTooShortError: The prompt with its longest continuation is too long.
            RequestError: An empty prompt or continuation.
        """
        if not prompt or not continuations or not all(continuations):
            raise RequestError(
                "A prompt or a continuation without tokens has no log-probability.", "Give each of them some text."
            )
        self._check(len(prompt) + max(len(tokens) for tokens in continuations))
        return self._scheduler.score(prompt, continuations)

    def close(self, patience: float | None = None) -> None:
        """End the thread and let the memory go; `patience` is how many seconds to wait for it, None without limit."""
        self._scheduler.close(patience)

    def _check(self, length: int) -> None:
        if length > self.context_length:
            raise ContextTooShortError(
                f"The prompt needs {length} tokens, and the model's context holds {self.context_length}.",
                "Shorten the prompt, or use a model with a longer context.",
            )


def make_runner(loaded: Loaded, settings: Settings) -> Runner:
    """The runner that shares prefixes when it gives this model's own logits, else the plain one.

    Raises:
        RequestError: `attn=shared` was asked for and the model does not allow it.
    """
    kind = loaded.device.type
    max_rows = settings.max_batch_size or _MAX_ROWS.get(kind, 32)
    chunk = _CHUNK.get(kind, 1024)
    if settings.attn != "padded":
        obstacle = sharing_obstacle(loaded)
        if obstacle is None:
            budget = memory.cache_budget(loaded.device)
            obstacle, runner = _try_shared(loaded, max_rows, budget, chunk)
            if runner is not None:
                return runner
        if settings.attn == "shared":
            raise RequestError(f"This model cannot share prefixes: {obstacle}.", "Leave out -M attn=shared.")
        logger.warning("Samples of one prompt do not share their prefix with this model: %s.", obstacle)
    return PaddedRunner(loaded.model, max_rows, chunk)


def sharing_obstacle(loaded: Loaded) -> str | None:
    """Why a model's attention cannot be replaced, None when nothing speaks against it."""
    config = loaded.model.config.get_text_config()
    if not loaded.model._supports_attention_backend:
        return "its attention does not go through transformers' attention interface"
    kinds = set(getattr(config, "layer_types", None) or [])
    window = getattr(config, "sliding_window", None)
    if kinds - {"full_attention"} or (not kinds and window is not None and window < loaded.context_length):
        return "it does not attend to its whole context in every layer"
    rope = str(getattr(config, "rope_parameters", None))
    if "dynamic" in rope or "longrope" in rope:
        return "its position encoding depends on the length of the sequence"
    return None


def _try_shared(loaded: Loaded, max_rows: int, budget: int, chunk: int) -> tuple[str, SharedRunner | None]:
    model, before = loaded.model, loaded.model.config._attn_implementation
    tokens = probe_tokens(model)
    with torch.inference_mode():
        expected = model(input_ids=tokens, use_cache=False).logits[0].float()
    try:
        model.set_attn_implementation(ATTENTION_NAME)
        runner = SharedRunner(model, loaded.context_length, max_rows, budget, chunk)
        found = runner.check_logits(tokens[0].tolist())
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        if memory.ran_out(error):
            raise
        reason = f"trying it failed ({error})"
    else:
        # In units of the logits' own spread: rounding gives 1e-5 in float32 and some hundredths in bfloat16, and
        # attention to the wrong tokens gives about 1.
        difference = ((found - expected[-1]).square().mean().sqrt() / expected[-1].std()).item()
        if difference <= (1e-3 if loaded.dtype == torch.float32 else 0.15):
            return "", runner
        reason = f"its logits would change by {difference:.2g} of their spread"
    model.set_attn_implementation(before)
    return reason, None


_engines: dict[tuple[Any, ...], Engine] = {}
_users: Counter[int] = Counter()
_table_lock = threading.Lock()


def acquire(resolved: ResolvedModel, settings: Settings) -> Engine:
    """The engine of a model, loaded when it is not in memory yet; `release` it after use."""
    key = (resolved.path, resolved.adapter, tuple(sorted(resolved.identity.items())), settings)
    with _table_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = Engine(load(resolved, settings), settings)
        _users[id(engine)] += 1
        return engine


def release(engine: Engine) -> None:
    """Give an engine back; it is closed when nobody uses it any more."""
    with _table_lock:
        _users[id(engine)] -= 1
        if _users[id(engine)] > 0:
            return
        del _users[id(engine)]
        for key in [key for key, other in _engines.items() if other is engine]:
            del _engines[key]
    engine.close()


@atexit.register
def _close_all() -> None:
    # A thread inside torch while the interpreter is taken down can crash it.
    for engine in list(_engines.values()):
        engine.close(patience=10)
