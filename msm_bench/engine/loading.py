"""From a resolved name to a model in memory: weights, adapter, tokenizer, and what the engine must know of them."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from msm_bench.checkpoints import ResolvedModel
from msm_bench.engine.probing import probe_tokens
from msm_bench.engine.settings import Settings
from msm_bench.errors import CorruptWeightsError, NotAModelError, RequestError

logger = logging.getLogger(__name__)

_UNLIMITED = 2**20


@dataclass(frozen=True)
class Loaded:
    """A model ready to run.

    Attributes:
        model: The causal language model in evaluation mode, its adapter's layers in place.
        tokenizer: Of the adapter when that has one.
        device: Where the first layer is.
        dtype: Of the weights.
        context_length: Longest sequence, in tokens.
        ends: Tokens that end a generation.
        identity: Which weights these are, for the log.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    context_length: int
    ends: frozenset[int]
    identity: dict[str, str]


@contextmanager
def _quietly() -> Iterator[None]:
    """No progress bars from transformers: they would break into Inspect's display."""
    bars: Any = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def load(resolved: ResolvedModel, settings: Settings) -> Loaded:
    """Load weights, adapter and tokenizer.

    Raises:
        NotAModelError: transformers has no class for this model, or a file is missing.
        CorruptWeightsError: Weights that cannot be read, do not cover the model or do not fit it.
        RequestError: The device does not exist.
    """
    device = pick_device(settings.device)
    dtype = pick_dtype(settings.dtype, device)
    with _quietly():
        model = _base(resolved.path, device, dtype, settings.device == "auto")
    identity = dict(resolved.identity)
    if resolved.adapter is not None:
        model = _with_adapter(model, resolved, identity)
    model.eval().requires_grad_(False)
    tokenizer = _tokenizer(str(resolved.template_source))
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        device=next(model.parameters()).device,
        dtype=dtype,
        context_length=context_length(model.config, tokenizer),
        ends=end_tokens(model, tokenizer),
        identity=identity,
    )


def pick_device(asked: str | None) -> torch.device:
    """The device to load on: the best there is when none (or "auto") is asked for."""
    if asked in (None, "auto"):
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        device = torch.device(str(asked))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"There is no device '{asked}' on this machine.", "Use -M device=cpu.") from error
    return device


def pick_dtype(asked: str, device: torch.device) -> torch.dtype:
    """The dtype of the weights; "auto" is bfloat16 where the hardware multiplies it, else float32.

    On a CPU without bfloat16 instructions the conversion costs more than the smaller weights save: eight times
    slower products were measured on AVX2.
    """
    if asked != "auto":
        found: torch.dtype = getattr(torch, asked)
        return found
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float32
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _base(path: str, device: torch.device, dtype: torch.dtype, spread: bool) -> Any:
    try:
        model: Any
        info: dict[str, Any]
        model, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            path,
            dtype=dtype,
            device_map="auto" if spread and device.type == "cuda" else {"": device},
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise CorruptWeightsError(
            f"The weights of '{path}' cannot be loaded: {_first_line(error)}.", "Copy or download the model again."
        ) from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NotAModelError(
            f"transformers {transformers.__version__} cannot load '{path}': {_first_line(error)}.",
            "Give a causal language model that transformers knows without code of its own.",
        ) from error
    # What the file lacks, transformers fills with random numbers and a warning.
    lacking = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    if lacking:
        raise CorruptWeightsError(
            f"The weights of '{path}' lack {len(lacking)} of the model's tensors, '{sorted(lacking)[0]}' first.",
            "Copy or download the model again.",
        )
    return model


def _with_adapter(base: Any, resolved: ResolvedModel, identity: dict[str, str]) -> Any:
    """Put PEFT's own layers into the model, for adapters that `adapters` does not run; never merged either."""
    from peft import PeftModel  # seconds to import, and most models have no adapter

    folder = str(resolved.adapter)
    kind = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8")).get("task_type")
    if kind not in (None, "CAUSAL_LM"):
        raise NotAModelError(f"The adapter '{folder}' is for {kind}.", "Give an adapter of a causal language model.")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrapped = PeftModel.from_pretrained(base, folder, is_trainable=False)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise CorruptWeightsError(
            f"The adapter '{folder}' cannot be put on its base: {_first_line(error)}.",
            "Check base_model_name_or_path in its adapter_config.json, and copy it again.",
        ) from error
    if wrapped.active_peft_config.is_prompt_learning:
        raise NotAModelError(
            f"The adapter '{folder}' is of the kind {wrapped.active_peft_config.peft_type.value}.",
            "Give an adapter that changes weights, such as LoRA.",
        )
    for warning in caught:
        if "missing adapter keys" in str(warning.message):
            raise CorruptWeightsError(
                f"The adapter '{folder}' lacks tensors that its own adapter_config.json asks for.", "Copy it again."
            )
    wrapped.eval()
    model = wrapped.get_base_model()
    tell_effect(_adapter_effect(wrapped, model), resolved, identity)
    return model


def without_adapter(resolved: ResolvedModel) -> ResolvedModel:
    """The base of an adapter."""
    identity = {key.removeprefix("base_"): value for key, value in resolved.identity.items() if key.startswith("base_")}
    return resolved.model_copy(update={"adapter": None, "template_source": resolved.path, "identity": identity})


def with_adapter(base: Loaded, resolved: ResolvedModel) -> Loaded:
    """What there is to know of a base with an adapter on it, but for the adapter's effect."""
    tokenizer = base.tokenizer if resolved.template_source == resolved.path else _tokenizer(str(resolved.template_source))
    return replace(
        base,
        tokenizer=tokenizer,
        context_length=context_length(base.model.config, tokenizer),
        ends=end_tokens(base.model, tokenizer),
        identity=dict(resolved.identity),
    )


def has_tokenizer(folder: str) -> bool:
    """Whether a model's folder has a tokenizer of its own."""
    return any(Path(folder, name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"))


def speaks_alike(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers turn tokens into the same text."""
    return one is other or (one.get_vocab() == other.get_vocab() and one.all_special_ids == other.all_special_ids)


def tell_effect(effect: float, resolved: ResolvedModel, identity: dict[str, str]) -> None:
    """Note the largest change of a logit that an adapter makes, and warn when it makes none."""
    identity["adapter_effect"] = f"{effect:.4g}"
    if effect == 0:
        logger.warning("The adapter '%s' changes nothing: the outputs are those of its base.", resolved.adapter)


@torch.inference_mode()
def _adapter_effect(wrapped: Any, model: Any) -> float:
    """Largest change of a logit that the adapter makes on some fixed tokens."""
    tokens = probe_tokens(model)
    after: Tensor = model(input_ids=tokens, use_cache=False).logits.float()
    with wrapped.disable_adapter():
        before: Tensor = model(input_ids=tokens, use_cache=False).logits.float()
    return float((after - before).abs().max())


def _tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise NotAModelError(
            f"There is no tokenizer in '{source}' that can be loaded: {_first_line(error)}.",
            "Copy tokenizer.json and tokenizer_config.json of the base model into the folder.",
        ) from error
    return tokenizer


def context_length(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest sequence that model and tokenizer are made for."""
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or _UNLIMITED
    # A tokenizer without a limit has a huge number here.
    return int(min(length, tokenizer.model_max_length))


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a generation: those of the model, of its generation_config.json and of the tokenizer."""
    found: set[int] = set()
    for value in (
        model.config.get_text_config().eos_token_id,
        getattr(model.generation_config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(found)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:")
