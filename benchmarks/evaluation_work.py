"""The work of one engine in a process of its own: three prompts through Inspect's `eval()`.

Started by `evaluation.py`, which hands over a job file and reads the result file.
"""

import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PORT = 8971


def main() -> None:
    """Does the job of the file named first, writes its result to the file named second."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if job["engine"] == "vllm":
        with vllm_server(job):
            found = evaluate(job)
    else:
        found = evaluate(job)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Times of one evaluation, in seconds since the process was asked for."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, GenerateConfig
    from inspect_ai.solver import generate

    roles = {"system": ChatMessageSystem, "user": ChatMessageUser}
    prompts = json.loads(Path(job["prompts"]).read_text(encoding="utf-8"))
    if job["only"] is not None:
        prompts = [prompts[job["only"]]]
    samples = [
        Sample(id=prompt["id"], input=[roles[message["role"]](content=message["content"]) for message in prompt["messages"]])
        for prompt in prompts
    ]
    total = len(samples) * job["rollouts"]
    seed = None if job["engine"] == "vllm" else job["seed"]  # a seed of a request ends vLLM 0.32's CPU engine
    model = make_model(job)
    watch = Watch(model) if job["engine"] == "msm" else None
    ready = time.time() - job["asked"]
    [log] = eval(
        Task(
            dataset=MemoryDataset(samples),
            solver=generate(),
            config=GenerateConfig(temperature=job["temperature"], max_tokens=job["max_tokens"], seed=seed),
        ),
        model=model,
        epochs=job["rollouts"],
        max_samples=total,
        log_dir=job["logs"],
        log_realtime=False,
        display="none",
    )
    ended = time.time() - job["asked"]
    if log.status != "success" or log.samples is None or len(log.samples) != total:
        raise SystemExit(f"{job['engine']}: the evaluation ended as '{log.status}': {log.error}")
    outputs = [sample.output for sample in log.samples]
    found: dict[str, Any] = {
        "seconds": ended,
        "startup": ready,
        "rollouts": total,
        "rollouts_per_second": total / ended,
        "rollouts_per_second_after_startup": total / (ended - ready),
        "output_tokens": sum(output.usage.output_tokens for output in outputs if output.usage),
        "peak_gb": peak(job),
    }
    if watch is None:
        return found
    found |= watch.result(job["asked"])
    if job["profile"]:
        from evaluation_profile import profile_decode

        api = model.api
        prompts_ids = [list(api.chat.prompt(sample.input).ids) for sample in samples]
        found["profile"] = profile_decode(api.engine._runner, prompts_ids, job["rollouts"])
    return found


def make_model(job: dict[str, Any]) -> Any:
    """The model as Inspect gives it to a task."""
    from inspect_ai.model import get_model

    if job["engine"] == "vllm":
        return get_model("vllm/bench", base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", max_connections=256)
    if job["engine"] == "hf":
        import torch

        return get_model("hf/bench", model_path=job["model"], device=job["device"], dtype=getattr(torch, job["dtype"]))
    import msm_bench.engine.registration  # noqa: F401

    graphs = job["device"] == "cuda"
    return get_model(f"msm/{job['model']}", device=job["device"], dtype=job["dtype"], graphs=graphs)


class Watch:
    """When our engine's forward passes begin, seen from outside."""

    def __init__(self, model: Any) -> None:
        runner = model.api.engine._runner
        self.steps: list[tuple[float, int, bool]] = []  # time, rows, whether prompts were computed just before
        self._admitted, self.first = False, 0.0
        step, admit = runner.step, runner.admit

        def watched_step(*newest: Any) -> Any:
            self.steps.append((time.time(), len(runner.rows), self._admitted))
            self._admitted = False
            logits = step(*newest)
            self.first = self.first or time.time()
            return logits

        def watched_admit(waiting: Any) -> Any:
            self._admitted = True
            return admit(waiting)

        runner.step, runner.admit = watched_step, watched_admit

    def result(self, asked: float) -> dict[str, Any]:
        """First token, and the median seconds of a decode step of the most rows that ran together."""
        most = max(rows for _, rows, _ in self.steps)
        full = [
            later[0] - earlier[0]
            for earlier, later in zip(self.steps, self.steps[1:], strict=False)
            if earlier[1] == most and not later[2]
        ]
        median = sorted(full)[len(full) // 2] if full else float("nan")
        return {
            "first_token": self.first - asked,
            "steps": len(self.steps),
            "rows": most,
            "step_seconds": median,
            "decode_steps_per_second": 1 / median,
            "decode_seconds": self.steps[-1][0] - self.steps[0][0],
        }


def peak(job: dict[str, Any]) -> float:
    """Largest memory of this process in GB: the card's for CUDA, else resident."""
    if job["device"] == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


@contextmanager
def vllm_server(job: dict[str, Any]) -> Iterator[None]:
    """vLLM's own server, from its own environment; ready when the block begins."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}
    env |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": job["cores"], "HF_HUB_OFFLINE": "1"}
    env |= {"VLLM_NO_USAGE_STATS": "1", "PATH": f"{Path(job['vllm_python']).parent}:{os.environ['PATH']}"}
    command = [job["vllm_python"], "-m", "vllm.entrypoints.openai.api_server", "--model", job["model"]]
    command += ["--served-model-name", "bench", "--host", "127.0.0.1", "--port", str(PORT), "--enforce-eager"]
    command += ["--enable-prefix-caching", "--max-model-len", "4096", "--dtype", job["dtype"], "--generation-config", "vllm"]
    with Path(job["logs"], "vllm.txt").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, process_group=0)
    try:
        while not _answers():
            if server.poll() is not None:
                raise SystemExit(f"vLLM's server ended with {server.returncode}; its words are in {job['logs']}/vllm.txt.")
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(60)


def _answers() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
