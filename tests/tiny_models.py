"""Tiny random models with a tokenizer trained on the spot: everything the engine does, in milliseconds."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "A model may hold values; whether it acts on them where it costs something is another question.",
    "system user assistant one two three four five six seven eight nine ten",
]


def make_tokenizer(**extra: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", pad_token="<|im_end|>", **extra
    )
    wrapped.chat_template = CHATML
    return wrapped


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 2},
    "qwen2": {"model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 4},
    "qwen3": {"model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    "mistral": {"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": None},
    "neighbours": {"model_type": "ernie4_5", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "windowed": {"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 8},
}


def make_model(folder: Path, architecture: str, seed: int = 0, **changes: Any) -> Path:
    """Write a model folder; weights are large enough that the logits are far from uniform."""
    tokenizer = make_tokenizer()
    heads = ARCHITECTURES[architecture]["num_attention_heads"]
    sizes = {
        "hidden_size": 16 * heads,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(**{**sizes, **ARCHITECTURES[architecture], **changes})
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
