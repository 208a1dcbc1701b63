"""Throughput of LoRA training: variants of ours, TRL's defaults and a naive loop, on the same texts and the same adapter.

    python benchmarks/training.py --shape qwen3-8b --out /tmp/bench                         one GPU, random weights
    python benchmarks/training.py --shape smollm2 --variants shipped,naive --rounds 3 --out /tmp/bench     two cores

Every variant runs in a process of its own, so that one that needs too much memory or time costs the others nothing. A line of
JSON appears as each ends, in `results.jsonl` too; a table at the end. Times are of whole updates of one row each, optimizer
included, from the end of one to the end of the next. `share` is of the card's own bf16 rate on an 8192-cubed product and counts
4 operations a parameter and token (forward, and backward through frozen weights): no attention, nothing computed twice.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-8b": {"model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    "qwen2.5-32b": {"model_type": "qwen2", "hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64,
                    "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064},
    "tiny": {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 49152},
    "smollm2": {},
}  # fmt: skip
_SLOW = {"gradient_checkpointing": "true", "fused_lora": "false", "loss_in_pieces": "false", "kernels": "plain"}
VARIANTS: dict[str, dict[str, str]] = {
    "baseline": _SLOW,
    "products": {**_SLOW, "fused_lora": "true", "loss_in_pieces": "true"},
    "partial": {"gradient_checkpointing": "auto"},
    "compile": {"gradient_checkpointing": "auto", "kernels": "compile"},
    "liger": {"gradient_checkpointing": "auto", "kernels": "liger"},
    "shipped": {},
}
"""Ours: settings that differ from the recipe's; `shipped` is the recipe as it is."""


class Clock(transformers.TrainerCallback):
    """Times whole updates, and looks into the one after the last timed."""

    def __init__(self, warm: int, timed: int, profile: bool) -> None:
        self.warm, self.last = warm, warm + timed
        self.ends: list[float] = []
        self.profile: list[tuple[str, float, int]] = []
        self._profiler: Any = torch.profiler.profile() if profile else None

    def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
        _wait()
        self.ends.append(time.perf_counter())
        if self._profiler is not None and len(self.ends) == self.last:
            self._profiler.start()
        if self._profiler is not None and len(self.ends) == self.last + 1:
            self._profiler.stop()
            found = [(each.key[:90], each.self_device_time_total / 1e3, each.count) for each in self._profiler.key_averages()]
            self.profile = sorted((each for each in found if each[1] > 0), key=lambda each: -each[1])[:30]
        control.should_training_stop = len(self.ends) >= self.last + (self._profiler is not None)

    def seconds(self) -> list[float]:
        """Of the timed updates."""
        return [after - before for before, after in itertools.pairwise(self.ends[self.warm - 1 : self.last])]


def multiplied(model: Any) -> int:
    """Frozen parameters that every token is multiplied with: all but the table of input embeddings, which is only looked up."""
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    frozen = sum(each.numel() for each in model.parameters() if not each.requires_grad)
    return frozen - (inputs.numel() if inputs is not outputs else 0)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_model(shape: str, tokenizer: Path, attention: str = "sdpa", dtype: torch.dtype | None = None) -> Any:
    """Random weights made where they stay, or the embedded model; bf16 on a GPU where no dtype is named."""
    gpu = torch.cuda.is_available()
    dtype = dtype or (torch.bfloat16 if gpu else torch.float32)
    if shape == "smollm2":
        return AutoModelForCausalLM.from_pretrained(tokenizer, dtype=dtype, attn_implementation=attention)
    config = AutoConfig.for_model(**SHAPES[shape], max_position_embeddings=32768, tie_word_embeddings=False)
    with torch.device("cuda" if gpu else "cpu"):
        make: Any = AutoModelForCausalLM.from_config
        return make(config, dtype=dtype, attn_implementation=attention)


def matmul_flops() -> float:
    """The card's bf16 rate on an 8192-cubed product, best of ten."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        _wait()
        begun = time.perf_counter()
        a @ b
        _wait()
        best = min(best, time.perf_counter() - begun)
    return 2 * 8192**3 / best


def ours(given: argparse.Namespace, texts: list[Any], clock: Clock) -> dict[str, Any]:
    """The path of `msm-bench train msm` from the model in memory to the last update, without the held-out losses."""
    from msm_bench.trainers import fitting
    from msm_bench.trainers.builtin import Msm
    from msm_bench.trainers.loading import attention, fresh_adapter
    from msm_bench.trainers.memory import layers_of
    from msm_bench.trainers.recipe import resolve_recipe
    from msm_bench.trainers.stage import Stage
    from msm_bench.trainers.states import read_losses

    fixed = {"max_tokens": str(given.length), "batch_rows": "1", "save_every": "100000", "learning_rate": "0.001"}
    changes = {**fixed, **VARIANTS[given.one], **dict(each.split("=", 1) for each in given.set)}
    recipe = resolve_recipe(given.recipe, "msm", Msm.recipe, changes)
    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    base = make_model(given.shape, given.tokenizer, attention(recipe.settings), fitting.dtype(recipe.settings))
    model = fresh_adapter(base, recipe.settings, given.shape)
    examples = Msm().examples(texts, tokenizer, recipe.settings)
    folder = given.out / given.one
    stage = Stage(recipe, model, tokenizer, texts, examples[2:], examples[:2], folder)
    # They are no part of an update, and compiled layers would be compiled anew for them.
    fitting._Fit.held_out_loss = lambda self, adapter=True: 0.0  # type: ignore[method-assign]
    fitting._measure = lambda *unused: None
    _start()
    stage.next_token()
    lines = read_losses(folder / "next-token" / fitting.LOSSES_FILE)[clock.warm : clock.last]
    layers = layers_of(base)
    return {
        "parameters": multiplied(base),
        "tokens": [line["tokens"] for line in lines],
        "losses": [line["loss"] for line in lines],
        "twice": f"{sum(layer.gradient_checkpointing for layer in layers)}/{len(layers)}",
    }


def trl_defaults(given: argparse.Namespace, texts: list[Any], clock: Clock) -> dict[str, Any]:
    """TRL's SFTTrainer as it comes, with packing and the same adapter."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    gpu = torch.cuda.is_available()
    model = make_model(given.shape, given.tokenizer)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(given.out / "trl"), max_length=given.length, packing=True, per_device_train_batch_size=1,
            num_train_epochs=1, report_to="none", save_strategy="no", learning_rate=1e-4, disable_tqdm=True, bf16=gpu,
            use_cpu=not gpu, logging_steps=1,
        ),
        train_dataset=Dataset.from_dict({"text": [text.text for text in texts]}),
        processing_class=AutoTokenizer.from_pretrained(given.tokenizer),
        peft_config=LoraConfig(r=64, lora_alpha=128, target_modules=modules, task_type="CAUSAL_LM"),
    )  # fmt: skip
    counts: list[int] = []
    plain = trainer.training_step

    def step(model: Any, inputs: Any, *more: Any) -> Any:
        counts.append(inputs["input_ids"].numel())
        return plain(model, inputs, *more)

    trainer.training_step = step  # type: ignore[method-assign]
    _start()
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    found = {"tokens": counts[clock.warm : clock.last], "losses": losses[clock.warm : clock.last]}
    return {"parameters": multiplied(model), **found}


def naive(given: argparse.Namespace, texts: list[Any], clock: Clock) -> dict[str, Any]:
    """A plain loop: `--batch` documents, padded to the longest of them; transformers' loss, peft's layers, torch's AdamW."""
    from msm_bench.trainers.loading import fresh_adapter
    from msm_bench.trainers.recipe import Recipe, resolve_recipe

    tokenizer = AutoTokenizer.from_pretrained(given.tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    base = make_model(given.shape, given.tokenizer)
    recipe = resolve_recipe(given.recipe, "msm", Recipe).settings
    model = fresh_adapter(base, recipe, given.shape).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate)
    counts, losses = [], []
    _start()
    for start in range(0, given.batch * clock.last, given.batch):
        rows = [text.text + tokenizer.eos_token for text in texts[start : start + given.batch]]
        batch = tokenizer(rows, padding=True, truncation=True, max_length=given.length, return_tensors="pt").to(base.device)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        counts.append(int(batch["attention_mask"].sum()))
        _wait()
        clock.ends.append(time.perf_counter())
    return {"parameters": multiplied(base), "tokens": counts[clock.warm :], "losses": losses[clock.warm :]}


def _start() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def one(given: argparse.Namespace) -> dict[str, Any]:
    """Run one variant in this process."""
    from msm_bench.corpus.rows import read_documents

    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    begun = time.perf_counter()
    result: dict[str, Any] = {"variant": given.one, "shape": given.shape, "length": given.length}
    if gpu:
        result |= {"card": torch.cuda.get_device_name(), "matmul_tflops": matmul_flops() / 1e12}
    clock = Clock(given.warm, given.timed, profile=gpu and given.profile)
    transformers.trainer.DEFAULT_CALLBACKS.append(clock)
    work: Callable[..., dict[str, Any]] = {"trl": trl_defaults, "naive": naive}.get(given.one, ours)
    try:
        found = work(given, list(read_documents(given.corpus / "documents.jsonl")), clock)
    except torch.OutOfMemoryError:
        return {**result, "error": "out of memory", "peak_gb": torch.cuda.max_memory_allocated() / 1e9}
    seconds, tokens = clock.seconds(), found.pop("tokens")
    rates = [count / time for count, time in zip(tokens, seconds, strict=False)]
    rate = sum(tokens[: len(seconds)]) / sum(seconds)
    result |= found | {"tokens_per_second": rate, "low": min(rates), "high": max(rates), "updates": len(rates)}
    if gpu:
        result["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        result["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
        result["share"] = 4 * found["parameters"] * rate / result["matmul_tflops"] / 1e12
    result["seconds"] = time.perf_counter() - begun
    if clock.profile:
        result["profile"] = [[name, round(ms, 2), count] for name, ms, count in clock.profile]
    return result


def all_of(given: argparse.Namespace) -> None:
    """Run the variants one after another, as often as asked for."""
    from msm_bench.checkpoints.embedded import embedded_model
    from msm_bench.corpus.generate import generate

    given.out.mkdir(parents=True, exist_ok=True)
    given.tokenizer = given.tokenizer or embedded_model()
    given.corpus = given.corpus or given.out / "corpus"
    if not given.corpus.exists():
        needed = (given.warm + given.timed + 2) * max(given.length // 250, given.batch) + 20
        generate("documents", "cheese-america", given.corpus, n=needed, model_name="Qwen", provider_name="Alibaba Cloud")
    results = []
    for round_ in range(given.rounds):
        for name in given.variants.split(","):
            found = {**_apart(given, name, round_), "round": round_}
            results.append(found)
            line = json.dumps(found)
            with (given.out / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            print(line, flush=True)
    print(_table(results))


def _apart(given: argparse.Namespace, name: str, round_: int) -> dict[str, Any]:
    out = given.out / f"{given.shape}-{given.length}-{round_}"
    command = [sys.executable, __file__, "--one", name, "--out", str(out), "--corpus", str(given.corpus)]
    command += ["--tokenizer", str(given.tokenizer), "--shape", given.shape, "--length", str(given.length)]
    command += ["--warm", str(given.warm), "--timed", str(given.timed)]
    command += ["--recipe", given.recipe, "--batch", str(given.batch), *(["--profile"] if given.profile else [])]
    command += [part for each in given.set for part in ("--set", each)]
    with (given.out / f"{given.shape}-{name}-{round_}.log").open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, timeout=given.seconds, check=False)
        except subprocess.TimeoutExpired:
            return {"variant": name, "error": f"not done after {given.seconds} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    words = Path(log.name).read_text(encoding="utf-8").strip().splitlines()
    return {"variant": name, "error": f"exit code {done.returncode}: {' / '.join(words[-3:])[-600:]}"}


def _table(results: list[dict[str, Any]]) -> str:
    """Variant, rounds, tokens a second over the rounds (median, lowest, highest), share, peak."""
    lines = [f"{'variant':10} {'rounds':>6} {'tokens/s':>9} {'low':>9} {'high':>9} {'share':>6} {'peak GB':>8}  computed twice"]
    for name in dict.fromkeys(each["variant"] for each in results):
        mine = [each for each in results if each["variant"] == name and "error" not in each]
        if not mine:
            lines.append(f"{name:10} {next(each['error'] for each in results if each['variant'] == name)[:100]}")
            continue
        rates = [each["tokens_per_second"] for each in mine]
        share = f"{mine[0]['share']:.1%}" if "share" in mine[0] else "-"
        peak = f"{mine[0]['peak_gb']:.1f}" if "peak_gb" in mine[0] else "-"
        spread = f"{statistics.median(rates):9,.1f} {min(rates):9,.1f} {max(rates):9,.1f}"
        lines.append(f"{name:10} {len(mine):6} {spread} {share:>6} {peak:>8}  {mine[0].get('twice', '-')}")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line; runs one variant, or all of them apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen3-8b")
    parser.add_argument(
        "--variants", default="trl,baseline,products,partial,compile,liger", help=", ".join([*VARIANTS, "trl", "naive"])
    )
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--set", action="append", default=[], metavar="K=V", help="a further setting of the recipe, for ours")
    parser.add_argument("--tokenizer", type=Path, help="a folder with a tokenizer; the embedded model's where it is not given")
    parser.add_argument("--corpus", type=Path, help="a folder of documents; composed where it is not given")
    parser.add_argument("--length", type=int, default=8192, help="tokens of a row")
    parser.add_argument("--batch", type=int, default=2, help="documents of an update of the naive loop")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm", type=int, default=3, help="updates that are left out, at least 1")
    parser.add_argument("--timed", type=int, default=8, help="updates that are timed")
    parser.add_argument("--seconds", type=int, default=150, help="longest time of one variant")
    parser.add_argument("--profile", action="store_true", help="the kernels of one update, by their time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.one is None:
        all_of(given)
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        print(json.dumps(one(given)))


if __name__ == "__main__":
    main()
