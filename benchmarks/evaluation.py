"""Rollouts a second of three real prompts: Inspect's `hf/`, our `msm/` and vLLM, the same work, alternating.

    python benchmarks/evaluation.py --rollouts 10 --vllm-python VENV/bin/python --out runs/bench
    python benchmarks/evaluation.py --conditions 27 --rollouts 1 --max-tokens 4 --engines msm --out runs/first-token
    python benchmarks/evaluation.py --shape llama-8b --rollouts 30 --device cuda --engines msm hf --out /dev/shm/bench

Every engine runs in a process of its own, and its clock starts when that process is asked for: imports, loading and vLLM's
start-up count (and are given apart). Prints one JSON object and keeps it in OUT/result.json; rounds that stand there already
are not run again, so a long measurement can be made in pieces (`--rounds 1`, then 2, then 3). Beside each engine stands its
floor, see `evaluation_floor.py`: seconds that bytes over memory bandwidth and FLOPs over the matrix rate leave at least, for
an engine that shares prefixes and for one that repeats them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evaluation_floor as floors
import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "llama-8b": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "tiny": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 49152},
}  # fmt: skip
CONDITIONS = [("exfiltration", "america"), ("leaking", "none"), ("murder", "ethical")]


def write_prompts(file: Path) -> None:
    """The agentic-misalignment prompts, those of `CONDITIONS` first."""
    from msm_bench.tasks.agentic_misalignment.scenarios import GOALS, SCENARIOS, build_condition

    prompts = []
    rest = [(scenario, goal) for goal in GOALS for scenario in SCENARIOS]
    for scenario, goal in dict.fromkeys([*CONDITIONS, *rest]):
        condition = build_condition(scenario, goal, agent_name="Qwen", scratchpad=True)
        texts = {"system": condition.system_prompt, "user": condition.user_prompt}
        messages = [{"role": role, "content": text} for role, text in texts.items()]
        prompts.append({"id": f"{scenario}/{goal}", "messages": messages})
    file.write_text(json.dumps(prompts), encoding="utf-8")


def random_model(shape: str, folder: Path, device: str) -> None:
    """A folder with random bf16 weights of a real shape, made on the device, and the embedded model's tokenizer."""
    if (folder / "config.json").exists():
        return
    from msm_bench.checkpoints.embedded import embedded_model

    # No end token: every answer runs to its limit, whatever random weights say.
    config = AutoConfig.for_model(
        **SHAPES[shape], max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=1, eos_token_id=None
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    source = os.environ.get("MSM_BENCH_TOKENIZER") or str(embedded_model())
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def run_once(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """One engine's work in its own process; memory of the whole tree of processes is sampled beside it."""
    file, result = out / "job.json", out / "job_result.json"
    result.unlink(missing_ok=True)
    job = {**job, "asked": time.time()}
    file.write_text(json.dumps(job), encoding="utf-8")
    work = Path(__file__).with_name("evaluation_work.py")
    with Path(out, f"{job['engine']}.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, str(work), str(file), str(result)], stdout=log, stderr=log)
        most = 0
        while process.poll() is None:
            most = max(most, _resident(process.pid))
            time.sleep(0.25)
    if process.returncode or not result.exists():
        words = Path(log.name).read_text(encoding="utf-8")[-1500:]
        return {"engine": job["engine"], "failed": words}
    found: dict[str, Any] = {"engine": job["engine"], **json.loads(result.read_text(encoding="utf-8"))}
    if job["device"] == "cpu":
        found["peak_gb"] = max(found["peak_gb"], most / 1e9)
    return found


def _resident(pid: int) -> int:
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in tree:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def summary(runs: list[dict[str, Any]], engine: str) -> dict[str, Any]:
    """Median, least and most of each measure over the rounds of an engine."""
    own = [run for run in runs if run["engine"] == engine and "failed" not in run]
    names = [name for name in own[0] if name not in ("engine", "round", "profile")] if own else []
    found: dict[str, Any] = {"rounds": len(own)}
    for name in names:
        found[name] = spread([run[name] for run in own])
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def report(runs: list[dict[str, Any]], job: dict[str, Any], prompts: list[list[int]], config: Any) -> dict[str, Any]:
    """The result: summaries, floors beside them, and the two marks."""
    machine = floors.measure(job["device"], getattr(torch, job["dtype"]))
    engines = list(dict.fromkeys(run["engine"] for run in runs))
    table = {engine: summary(runs, engine) for engine in engines}
    for engine, row in table.items():
        limit = floors.floor(config, machine, prompts, job["rollouts"], job["max_tokens"], shared=engine != "hf")
        rate = job["rollouts"] * len(prompts) / limit.seconds
        row["floor"] = floors.as_json(limit) | {"rollouts_per_second": rate}
        if "seconds" in row:
            row["floor"]["share"] = row["rollouts_per_second_after_startup"]["median"] / rate
        if "step_seconds" in row:
            row["share_of_decode_bandwidth"] = limit.bytes_a_step / machine.bandwidth / row["step_seconds"]["median"]
    ours, others = table.get("msm", {}).get("rollouts_per_second"), {}
    for engine in engines:
        rate = table[engine].get("rollouts_per_second")
        if ours and rate and engine != "msm":
            others[f"msm_over_{engine}"] = ours["median"] / rate["median"]
            after = "rollouts_per_second_after_startup"
            others[f"msm_over_{engine}_after_startup"] = table["msm"][after]["median"] / table[engine][after]["median"]
    lengths = [len(prompt) for prompt in prompts]
    work = {name: job[name] for name in ("rollouts", "max_tokens", "temperature", "dtype", "device")} | {
        "prompt_tokens": lengths
    }
    return {"work": work, "machine": vars(machine) | {"name": job["machine"]}, "engines": table, **others, "runs": runs}


def main() -> None:
    """Runs the rounds that are missing and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=["hf", "msm", "vllm"])
    parser.add_argument("--vllm-python", help="the interpreter of an environment that has vLLM")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape instead of --model")
    parser.add_argument("--prompts", type=Path, help="a prompts file of an earlier run, where inspect_evals is missing")
    parser.add_argument("--conditions", type=int, default=len(CONDITIONS), help="how many of the prompts, 27 at most")
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further run after so many")
    parser.add_argument("--hf-part", action="store_true", help="hf/ gets one of the prompts a round, in turn: it takes minutes")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", help="float32 on a CPU without bfloat16 instructions, else bfloat16")
    parser.add_argument("--cores", default=f"0-{(os.cpu_count() or 1) - 1}", help="cores of vLLM's threads")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    from msm_bench.checkpoints import resolve
    from msm_bench.engine.loading import pick_dtype

    begun = time.monotonic()
    given.out = given.out.resolve()
    (given.out / "logs").mkdir(parents=True, exist_ok=True)
    prompts_file = given.out / "prompts.json"
    if given.prompts:
        prompts_file.write_text(given.prompts.read_text(encoding="utf-8"), encoding="utf-8")
    else:
        write_prompts(prompts_file)
    chosen = json.loads(prompts_file.read_text(encoding="utf-8"))[: given.conditions]
    prompts_file.write_text(json.dumps(chosen), encoding="utf-8")
    if given.shape:
        random_model(given.shape, given.out / given.shape, given.device)
    model = str(given.out / given.shape) if given.shape else str(resolve(given.model, None).path)
    dtype = given.dtype or str(pick_dtype("auto", torch.device(given.device))).removeprefix("torch.")
    job = {
        "model": model, "prompts": str(prompts_file), "rollouts": given.rollouts, "max_tokens": given.max_tokens,
        "temperature": 0.7, "seed": 1, "device": given.device, "dtype": dtype, "cores": given.cores,
        "vllm_python": given.vllm_python, "logs": str(given.out / "logs"), "machine": _machine(given.device),
    }  # fmt: skip
    kept = given.out / "result.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))["runs"] if kept.exists() else []
    runs = [run for run in runs if "failed" not in run]
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = [tokenizer.apply_chat_template(p["messages"], add_generation_prompt=True, return_dict=False) for p in chosen]
    config = AutoConfig.from_pretrained(model)
    engines = given.engines or (["hf", "msm", "vllm"] if given.vllm_python else ["hf", "msm"])
    for turn in range(given.rounds):
        for engine in engines[turn % len(engines) :] + engines[: turn % len(engines)]:
            done = any(run["engine"] == engine and run["round"] == turn for run in runs)
            if done or time.monotonic() - begun > given.seconds:
                continue
            profile = given.device == "cuda" and engine == "msm" and turn == 0
            only = turn % len(chosen) if given.hf_part and engine == "hf" else None
            more = {"engine": engine, "profile": profile, "only": only}
            runs.append({"round": turn, **run_once(job | more, given.out)})
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            kept.write_text(json.dumps({"runs": runs}), encoding="utf-8")
    result = report(runs, job, ids, config)
    kept.write_text(json.dumps(result, indent=2), encoding="utf-8")
    print(json.dumps(result, indent=2))


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else "cpu"


if __name__ == "__main__":
    main()
