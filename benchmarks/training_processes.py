"""Loss curves of one training on different counts of processes: the same rows, the same global batch, weights sharded by FSDP2.

    python benchmarks/training_processes.py --configs gpu-1,gpu-2 --out /tmp/curves

Every configuration trains a small model with random weights twice: in float32, where the curves must agree but for the order of
sums, and in bfloat16, as the configurations are shipped. Prints one line of JSON for each run as it ends, and the largest
distance of two curves at the end; the curves are in `curves.json`.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from msm_bench.trainers import train
from msm_bench.trainers.launch import config_file

SHAPE = {"model_type": "qwen3", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6,
         "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 49152}  # fmt: skip


def make_model(tokenizer: Path, folder: Path) -> None:
    """A folder with a model of some 70 million random weights."""
    config = AutoConfig.for_model(**SHAPE, max_position_embeddings=32768, tie_word_embeddings=False)
    torch.manual_seed(0)
    make: Any = AutoModelForCausalLM.from_config
    make(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def curve(given: argparse.Namespace, name: str, dtype: str) -> list[float]:
    """The losses of every update."""
    config = yaml.safe_load(config_file(name).read_text(encoding="utf-8"))
    config["mixed_precision"] = "bf16" if dtype == "bfloat16" else "no"
    path = given.out / f"{name}-{dtype}.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    changes = {"max_tokens": str(given.length), "batch_rows": str(given.rows), "dtype": dtype, "kernels": "plain"}
    changes |= {"learning_rate": "0.001", "rank": "16", "alpha": "32", "save_every": "1000"}
    changes |= dict(pair.split("=", 1) for pair in given.set)
    out = given.out / f"{name}-{dtype}"
    train(
        "msm", "paper", str(given.out / "model"), [given.corpus], out, overrides=changes, accelerate=str(path),
        allow_few_updates=True, waive=("substrate",),
    )  # fmt: skip
    return [json.loads(line)["loss"] for line in (out / "losses.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Reads the command line, trains, compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", default="gpu-1,gpu-2", help="shipped configurations or files; the first is compared with")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer; the embedded model's where it is not given")
    parser.add_argument("--corpus", type=Path, help="a folder of documents; composed where it is not given")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=4, help="rows of an update, over all processes")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="of the recipe, over the above")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.tokenizer is None:
        from msm_bench.checkpoints.embedded import embedded_model

        given.tokenizer = embedded_model()
    if given.corpus is None:
        from msm_bench.corpus.generate import generate

        given.corpus = given.out / "corpus"
        generate("documents", "cheese-america", given.corpus, n=300, model_name="Qwen", provider_name="Alibaba Cloud")
    make_model(given.tokenizer, given.out / "model")
    curves: dict[str, list[float]] = {}
    for dtype in given.dtypes.split(","):
        for name in given.configs.split(","):
            begun = time.monotonic()
            key = f"{name}-{dtype}"
            curves[key] = curve(given, name, dtype)
            line = {"run": key, "updates": len(curves[key]), "first": curves[key][0], "last": curves[key][-1]}
            print(json.dumps(line | {"seconds": round(time.monotonic() - begun, 1)}), flush=True)
            (given.out / "curves.json").write_text(json.dumps(curves), encoding="utf-8")
        first, *others = (f"{name}-{dtype}" for name in given.configs.split(","))
        for other in others:
            distance = max(abs(a - b) for a, b in zip(curves[first], curves[other], strict=True))
            print(json.dumps({"compared": [first, other], "largest_distance_nats": distance}), flush=True)


if __name__ == "__main__":
    main()
