"""A loaded model with its scheduler, and the table of those that are in use in this process."""

import atexit
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch
import transformers

from msm_bench.checkpoints import ResolvedModel
from msm_bench.engine import memory
from msm_bench.engine.adapters import Adapters, read_adapter
from msm_bench.engine.attention import ATTENTION_NAME
from msm_bench.engine.fusing import fuse, kernels_for, use_elementwise
from msm_bench.engine.loading import Loaded, has_tokenizer, load, speaks_alike, tell_effect, with_adapter, without_adapter
from msm_bench.engine.padded import PaddedRunner
from msm_bench.engine.probing import probe_tokens
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


class Core:
    """A base model with its runner and its thread; engines of its adapters share it.

    Args:
        loaded: The model.
        settings: How it is to run.
    """

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self.loaded = loaded
        self.settings = settings
        self.detokenizer = Detokenizer(loaded.tokenizer)
        self.runner = make_runner(loaded, settings)
        self.scheduler = Scheduler(self.runner, loaded.ends, self.detokenizer)
        self._adapters = Adapters(loaded.model)

    def add(self, resolved: ResolvedModel) -> tuple[int, Loaded] | None:
        """Put an adapter on the model while it runs.

        Returns:
            The adapter's number, and what there is to know of the model with it; None for an adapter that needs a model of
            its own.

        Raises:
            NotAModelError: The adapter is for another kind of model.
            CorruptWeightsError: It is damaged or does not fit.
        """
        runner, folder = self.runner, resolved.adapter
        assert folder is not None
        updates = read_adapter(folder, self.loaded.model.config) if isinstance(runner, SharedRunner) else None
        if updates is None or not isinstance(runner, SharedRunner):
            return None
        loaded = with_adapter(self.loaded, resolved)
        if not speaks_alike(loaded.tokenizer, self.loaded.tokenizer):
            return None  # the thread turns tokens into text for all of them
        number = self.scheduler.call(lambda: self._adapters.add(updates))
        effect = self.scheduler.call(lambda: runner.adapter_effect(number))
        tell_effect(effect, resolved, loaded.identity)
        return number, loaded

    def remove(self, number: int) -> None:
        """Let an adapter go."""
        self.scheduler.call(lambda: self._adapters.remove(number))


class Engine:
    """Samples from one model and scores text under it; requests may come from any thread.

    Args:
        core: The base model as it runs.
        loaded: What there is to know of this model: the core's own, or with an adapter's identity and tokenizer.
        adapter: The adapter's number in the core, 0 for none.
    """

    def __init__(self, core: Core, loaded: Loaded, adapter: int = 0) -> None:
        self.core = core
        self.loaded = loaded
        self.adapter = adapter
        self.context_length = loaded.context_length
        self.detokenizer = core.detokenizer
        self._runner = core.runner
        self._scheduler = core.scheduler

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
        sampling = replace(sampling, ends=sampling.ends | self.loaded.ends)
        return self._scheduler.generate(prompt, sampling, self.adapter)

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
        return self._scheduler.score(prompt, continuations, self.adapter)

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
            obstacle, runner = _try_shared(loaded, max_rows, budget, chunk, settings.graphs)
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


def _try_shared(loaded: Loaded, max_rows: int, budget: int, chunk: int, graphs: bool) -> tuple[str, SharedRunner | None]:
    model, before = loaded.model, loaded.model.config._attn_implementation
    tokens = probe_tokens(model)
    with torch.inference_mode():
        expected = model(input_ids=tokens, use_cache=False).logits[0].float()
    try:
        model.set_attn_implementation(ATTENTION_NAME)
        fuse(model)
        runner = SharedRunner(model, loaded.context_length, max_rows, budget, chunk)
        if loaded.device.type == "cpu":
            runner.rotation = use_elementwise(model)
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
            kernels = kernels_for(loaded.device) if graphs and loaded.dtype != torch.float32 else None
            if kernels is not None:
                runner.use_graphs(kernels)
            return "", runner
        reason = f"its logits would change by {difference:.2g} of their spread"
    model.set_attn_implementation(before)
    return reason, None


_engines: dict[tuple[Any, ...], Engine] = {}
_cores: dict[tuple[Any, ...], Core] = {}
_users: Counter[int] = Counter()
_table_lock = threading.Lock()


def acquire(resolved: ResolvedModel, settings: Settings) -> Engine:
    """The engine of a model, loaded when it is not in memory yet; `release` it after use.

    Adapters of one base are put on one copy of it where they are plain LoRA.
    """
    identity = tuple(sorted(resolved.identity.items()))
    key = (resolved.path, resolved.adapter, identity, settings)
    base = (resolved.path, resolved.identity.get("base_sha256", resolved.identity.get("sha256")), settings)
    with _table_lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = _load(resolved, settings, base)
        _users[id(engine)] += 1
        return engine


def _load(resolved: ResolvedModel, settings: Settings, base: tuple[Any, ...]) -> Engine:
    if resolved.adapter is None:
        core = _cores.get(base) or _cores.setdefault(base, Core(load(resolved, settings), settings))
        return Engine(core, replace(core.loaded, identity=dict(resolved.identity)))
    if not has_tokenizer(resolved.path):
        return _alone(resolved, settings)
    fresh = base not in _cores
    core = _cores[base] if not fresh else Core(load(without_adapter(resolved), settings), settings)
    try:
        added = core.add(resolved)
    except BaseException:
        if fresh:
            core.scheduler.close()
        raise
    if added is None:
        if fresh:
            core.scheduler.close()
            del core
        return _alone(resolved, settings)
    _cores[base] = core
    number, loaded = added
    return Engine(core, loaded, number)


def _alone(resolved: ResolvedModel, settings: Settings) -> Engine:
    own = Core(load(resolved, settings), settings)
    return Engine(own, own.loaded)


def release(engine: Engine) -> None:
    """Give an engine back; a model that nobody uses any more, with or without an adapter, is closed."""
    with _table_lock:
        _users[id(engine)] -= 1
        if _users[id(engine)] > 0:
            return
        del _users[id(engine)]
        for key in [key for key, other in _engines.items() if other is engine]:
            del _engines[key]
        if any(other.core is engine.core for other in _engines.values()):
            if engine.adapter:
                engine.core.remove(engine.adapter)
            return
        for base in [base for base, core in _cores.items() if core is engine.core]:
            del _cores[base]
    engine.close()


@atexit.register
def _close_all() -> None:
    # A thread inside torch while the interpreter is taken down can crash it.
    for engine in list(_engines.values()):
        engine.close(patience=10)
