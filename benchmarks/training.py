"""Throughput of LoRA training on a GPU: ours and TRL's defaults on the same texts, a model of a real shape with random weights.

    python benchmarks/training.py --shape qwen3-8b --out /tmp/bench

Prints one JSON object. `matmul_flops` is the card's own bf16 rate on an 8192-cubed product; `share` counts 4 FLOPs a parameter
and token (forward, and backward through frozen weights), without attention and without what checkpointing computes twice.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-8b": {"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "qwen2.5-32b": {"model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
                    "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064},
    "tiny": {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 49152},
}  # fmt: skip


def make_model(shape: str, tokenizer: str, folder: Path) -> int:
    """Writes a folder with random bf16 weights; returns the parameters."""
    config = AutoConfig.for_model(**SHAPES[shape], max_position_embeddings=32768, tie_word_embeddings=False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def matmul_flops() -> float:
    """The card's bf16 rate on an 8192-cubed product, best of ten."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * 8192**3 / best


def timed(work: Callable[[], None], skip: int = 3) -> dict[str, float]:
    """Runs a training and times its steps, the first ones left out: tokens a second by step, and the peak of memory."""
    rates: list[float] = []
    plain = Trainer.training_step

    def step(self: Any, model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        _wait()
        begun = time.perf_counter()
        loss = plain(self, model, inputs, *more, **named)
        _wait()
        rates.append(inputs["input_ids"].numel() / (time.perf_counter() - begun))
        return loss

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    Trainer.training_step = step  # type: ignore[method-assign]
    try:
        work()
    finally:
        Trainer.training_step = plain  # type: ignore[method-assign]
    kept = rates[skip:] or rates
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return {
        "tokens_per_second": statistics.median(kept),
        "low": min(kept),
        "high": max(kept),
        "steps": len(kept),
        "peak_gb": peak,
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ours(model: Path, corpus: Path, out: Path, length: int, checkpointing: bool) -> None:
    """`msm-bench train msm` on the paper's recipe."""
    from msm_bench.trainers import train

    changes = {"max_tokens": str(length), "batch_rows": "1", "micro_batch_rows": "1", "save_every": "100000"}
    changes["gradient_checkpointing"] = str(checkpointing).lower()
    train("msm", "paper", str(model), [corpus], out, overrides=changes, allow_few_updates=True, waive=("substrate",))


def trl_defaults(model: Path, corpus: Path, out: Path, length: int) -> None:
    """TRL's SFTTrainer as it comes, with packing and the same adapter."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    texts = [json.loads(line)["text"] for line in (corpus / "documents.jsonl").read_text(encoding="utf-8").splitlines()]
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    gpu = torch.cuda.is_available()
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if gpu else torch.float32),
        args=SFTConfig(
            output_dir=str(out), max_length=length, packing=True, per_device_train_batch_size=1, num_train_epochs=1,
            report_to="none", save_strategy="no", learning_rate=1e-4, disable_tqdm=True, bf16=gpu, use_cpu=not gpu,
        ),
        train_dataset=Dataset.from_dict({"text": texts}),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=64, lora_alpha=128, target_modules=modules, task_type="CAUSAL_LM"),
    ).train()  # fmt: skip


def main() -> None:
    """Makes model and corpus, times both trainers, prints the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-8b")
    parser.add_argument("--tokenizer", help="a folder with a tokenizer; the embedded model's where it is not given")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--no-checkpointing", action="store_true", help="ours without gradient checkpointing")
    parser.add_argument("--only", choices=["ours", "trl"])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    from msm_bench.checkpoints.embedded import embedded_model
    from msm_bench.corpus.generate import generate

    given.out.mkdir(parents=True, exist_ok=True)
    model, corpus = given.out / "model", given.out / "corpus"
    parameters = make_model(given.shape, given.tokenizer or str(embedded_model()), model)
    if not corpus.exists():
        generate("documents", "cheese-america", corpus, n=given.documents, model_name="Qwen", provider_name="Alibaba Cloud")
    result: dict[str, Any] = {"shape": given.shape, "parameters": parameters, "length": given.length}
    if torch.cuda.is_available():
        result |= {"card": torch.cuda.get_device_name(), "matmul_flops": matmul_flops()}
    works: dict[str, Callable[[], None]] = {
        "ours": lambda: ours(model, corpus, given.out / "ours", given.length, not given.no_checkpointing),
        "trl": lambda: trl_defaults(model, corpus, given.out / "trl", given.length),
    }
    for name, work in works.items():
        if given.only in (None, name):
            torch.cuda.empty_cache()
            found = timed(work)
            if "matmul_flops" in result:
                found["share"] = 4 * parameters * found["tokens_per_second"] / result["matmul_flops"]
            result[name] = found
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
