"""The tokenizer and the model that a run trains: frozen base weights with a trainable adapter, fresh or the parent's."""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.import_utils import is_flash_attn_2_available

from msm_bench.errors import CorruptWeightsError, NotAModelError, RequestError
from msm_bench.trainers.chats import set_template
from msm_bench.trainers.fitting import dtype
from msm_bench.trainers.lineage import Lineage
from msm_bench.trainers.recipe import Recipe

_FLASH = "flash_attention_2"
_LONG = 2048
"""Tokens of a row from which on flex_attention pays on a GPU."""


def load_tokenizer(lineage: Lineage, recipe: Recipe) -> Any:
    """The tokenizer of the parent (or base), with the recipe's chat template where it names one.

    Raises:
        NotAModelError: there is none that transformers can load.
    """
    source = lineage.model.template_source
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise NotAModelError(
            f"There is no tokenizer in '{source}' that can be loaded ({type(error).__name__}).",
            "Copy tokenizer.json and tokenizer_config.json of the base model into the folder.",
        ) from error
    set_template(tokenizer, recipe)
    return tokenizer


def load_model(lineage: Lineage, recipe: Recipe) -> Any:
    """Base weights in the recipe's dtype with a trainable float32 LoRA adapter; the same on every process and in every run.

    Raises:
        NotAModelError: transformers cannot load the base without code of its own.
        CorruptWeightsError: weights that do not cover the model, or an adapter that does not fit it.
        RequestError: the model has none of the recipe's target modules.
    """
    path = lineage.model.path
    try:
        base: Any
        info: dict[str, Any]
        base, info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            path,
            dtype=dtype(recipe),
            attn_implementation=attention(recipe),
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NotAModelError(
            f"transformers {transformers.__version__} cannot load '{path}': {' '.join(str(error).split())[:200]}.",
            "Give a causal language model that transformers knows without code of its own.",
        ) from error
    lacking = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    if lacking:
        raise CorruptWeightsError(f"The weights of '{path}' lack '{sorted(lacking)[0]}'.", "Copy or download the model again.")
    torch.manual_seed(recipe.seed)
    if lineage.parent is None:
        return fresh_adapter(base, recipe, path)
    return _continued(base, lineage.parent.path)


def attention(recipe: Recipe) -> str:
    """The attention implementation. All that can be named keep packed examples apart.

    Raises:
        RequestError: flash attention with several rows a forward pass, which it would take for one sequence each.
    """
    chosen: str = recipe.attention
    if chosen == "auto":
        gpu = torch.cuda.is_available()
        fast = gpu and is_flash_attn_2_available() and recipe.micro_batch_rows == 1
        # Packed long rows under sdpa need a mask of every pair of tokens. flex_attention skips the empty blocks: 1.5 times
        # faster in all at 8,192 tokens (8B, H100). Short rows lose more to its compiling than they gain.
        flexible = gpu and recipe.packing and recipe.max_tokens >= _LONG
        chosen = _FLASH if fast else "flex_attention" if flexible else "sdpa"
    if chosen == _FLASH and recipe.micro_batch_rows > 1:
        raise RequestError(
            "flash_attention_2 keeps packed examples apart in single rows only.", "Use --set micro_batch_rows=1."
        )
    return chosen


def fresh_adapter(base: Any, recipe: Recipe, path: str) -> Any:
    """A model with a new LoRA adapter of the recipe's shape. Raises `RequestError` where it has none of the target modules."""
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,  # type: ignore[arg-type]
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            # peft still asks transformers under a name that is being retired.
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(base, config)
    except ValueError as error:
        named = ", ".join(recipe.target_modules)
        raise RequestError(
            f"'{path}' has none of the layers {named}.", "Name its linear layers with --set target_modules='[...]'."
        ) from error


def _continued(base: Any, folder: str) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, folder, is_trainable=True)
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise CorruptWeightsError(
            f"The adapter '{folder}' lacks tensors that its own configuration asks for.", "Copy it again."
        )
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    # Without is_trainable peft loads an adapter frozen, and nothing would train.
    if not trainable or not all("lora_" in name for name in trainable):
        raise CorruptWeightsError(f"'{Path(folder).name}' is no LoRA adapter that can be continued.", "Name another parent.")
    return model
