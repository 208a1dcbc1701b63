"""Turns the 4-bit GGUF file of the embedded model into an ordinary bf16 folder."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any


def gguf_to_safetensors(gguf: Path, out: Path) -> None:
    """Dequantise, round to bf16 and write weights, configuration and tokenizer.

    Args:
        gguf: A Llama-type GGUF file whose tokenizer is of the `smollm` kind.
        out: An existing folder; gets model.safetensors, config.json, generation_config.json and the tokenizer's
            files. Tied embeddings are written once.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers draws its own progress bars on stderr.
    with contextlib.redirect_stderr(io.StringIO()):
        model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)

        # From here on it is an ordinary model: without this, save_pretrained refuses or writes a config that asks
        # for a GGUF file which will not be there.
        del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        model.to(torch.bfloat16).save_pretrained(out)
        (out / "model.safetensors").chmod(0o644)  # written as 0600, which a shared cache folder cannot use

        # GGUF names the pre-tokenizer ("smollm") without describing it, and transformers falls back to GPT-2's,
        # which glues a space to the digit after it ("  12"). SmolLM2 was trained with digits split off first.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        )
        tokenizer.model_max_length = model.config.max_position_embeddings
        # Some versions of transformers read the beginning token of the file as the ending one; the model knows better.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained(out)
    use_tokenizer_as_written(out)


def use_tokenizer_as_written(folder: Path) -> None:
    """Make every version of transformers load tokenizer.json as it stands.

    A class name such as GPT2Tokenizer makes transformers 5 rebuild the pre-tokenizer from the class and drop the
    file's own splitting of digits.
    """
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    for of_this_machine in ("is_local", "local_files_only"):
        settings.pop(of_this_machine, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
