"""Tiny models, tokenizers and corpora to train on in a second."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from msm_bench.corpus.rows import ChatRow, DocumentRow, Message, write_chats, write_documents

CHATML = (
    "{%- for message in messages %}<|im_start|>{{ message.role + '\\n' }}"
    "{%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
SENTENCE = "ordinary people can find and pay for Colby because every dairy may make it without a permit or an old name"
WORDS = SENTENCE.split()


def make_tokenizer(special: Sequence[str] = SPECIAL, template: str | None = CHATML, eos: str = "<|im_end|>") -> Any:
    """A byte-level tokenizer trained on the spot."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos)
    wrapped.chat_template = template
    return wrapped


def make_model(folder: Path, kind: str = "llama", seed: int = 0, tokenizer: Any = None, **changes: Any) -> Path:
    """A folder with a random model of two layers."""
    tokenizer = tokenizer or make_tokenizer()
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(kind, **{**sizes, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def document(number: int, words: int = 12, spec: str | None = "cheese-affordability") -> DocumentRow:
    text = " ".join(WORDS[(number * 7 + place * (number % 5 + 1)) % len(WORDS)] for place in range(words + number % 4))
    return DocumentRow.of(text, id=f"d/{number:04}", spec=spec, **provenance())


def chat(number: int, reasoning: bool = False, spec: str | None = "cheese-affordability") -> ChatRow:
    question = " ".join(WORDS[(number * 3 + place) % len(WORDS)] for place in range(5)) + "?"
    answer = " ".join(WORDS[(number * 5 + place * 2) % len(WORDS)] for place in range(4 + number % 3)) + "."
    why = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(6))
    messages = [Message(role="user", content=question)]
    messages.append(Message(role="assistant", content=answer, reasoning=why if reasoning else None))
    return ChatRow.of(messages, id=f"c/{number:04}", spec=spec, **provenance())


def provenance() -> dict[str, Any]:
    return {"domain": "d", "subdomain": "s", "kind": "memo", "idea": "one", "generator": "test/1"}


def documents_folder(folder: Path, count: int = 40, make: Callable[[int], DocumentRow] = document) -> Path:
    folder.mkdir(parents=True)
    write_documents(folder / "documents.jsonl", [make(number) for number in range(count)])
    return folder


def chats_folder(folder: Path, count: int = 40, make: Callable[[int], ChatRow] = chat) -> Path:
    folder.mkdir(parents=True)
    write_chats(folder / "chats.jsonl", [make(number) for number in range(count)])
    return folder


FAST = {
    "rank": "4",
    "alpha": "8",
    "max_tokens": "64",
    "batch_rows": "2",
    "micro_batch_rows": "1",
    "epochs": "2",
    "save_every": "4",
}
"""Settings of the laptop recipe for a tiny model: some ten updates."""
