"""Likelihood scoring of `value_preferences` by the engine, against one plain pass a candidate: the same numbers, faster.

    python benchmarks/evaluation_likelihood.py --value america --limit 40 --rounds 3

The task runs through Inspect's `eval()`, and what it asks the engine for is noted. Then plain transformers gets every candidate
in a pass of its own, without padding: once as `model(ids)` is called (logits of every token), once asked for the logits of the
candidate's tokens alone. The engine forgets its prefixes between rounds. Prints one JSON object; loading is counted on no side.
"""

import argparse
import json
import tempfile
import time
from typing import Any

import torch
from evaluation import spread
from inspect_ai import eval
from inspect_ai.model import get_model
from transformers import AutoModelForCausalLM

import msm_bench.engine.registration  # noqa: F401
from msm_bench.checkpoints import resolve
from msm_bench.tasks.value_preferences import value_preferences

Asked = list[tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[float, ...]]]


def by_engine(model: Any, value: str, limit: int) -> tuple[float, int, Asked]:
    """Seconds of the task, tokens that the engine computed, and what it was asked: prompt, candidates, log-probabilities."""
    engine = model.api.engine
    runner = engine._runner
    engine._scheduler.call(lambda: runner.reset(lower=False))
    plain, forward, futures, computed = engine.score, runner._forward, [], 0

    def counted(tokens: list[int], *rest: Any) -> torch.Tensor:
        nonlocal computed
        computed += len(tokens)
        found: torch.Tensor = forward(tokens, *rest)
        return found

    def score(prompt: Any, continuations: Any) -> Any:
        future = plain(prompt, continuations)
        futures.append((tuple(prompt), tuple(tuple(tokens) for tokens in continuations), future))
        return future

    engine.score, runner._forward = score, counted
    try:
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as logs:
            [log] = eval(
                value_preferences(value=value), model=model, limit=limit, log_dir=logs, display="none", log_realtime=False
            )
        seconds = time.perf_counter() - begun
    finally:
        del engine.score, runner._forward
    if log.status != "success":
        raise SystemExit(f"The task ended as '{log.status}': {log.error}")
    return (
        seconds,
        computed,
        [(prompt, texts, tuple(s.logprob_sum for s in future.result())) for prompt, texts, future in futures],
    )


@torch.inference_mode()
def by_passes(model: Any, asked: Asked, sparing: bool) -> tuple[float, float]:
    """Seconds of one pass a candidate, and the largest difference to the engine's log-probabilities in nats.

    Args:
        model: The reference.
        asked: See `by_engine`.
        sparing: Logits of the candidate's tokens alone.
    """
    worst, begun = 0.0, time.perf_counter()
    for prompt, candidates, expected in asked:
        for tokens, value in zip(candidates, expected, strict=True):
            ids = torch.tensor([prompt + tokens], device=model.device)
            kept = {"logits_to_keep": len(tokens) + 1} if sparing else {}
            logits = model(ids, use_cache=False, **kept).logits[0, -len(tokens) - 1 : -1].float()
            found = logits.log_softmax(-1).gather(1, ids[0, -len(tokens) :, None]).sum().item()
            worst = max(worst, abs(found - value))
    return time.perf_counter() - begun, worst


def main() -> None:
    """Measures both, alternating, and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--value", default="america")
    parser.add_argument("--limit", type=int, default=40, help="samples of the task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    model = get_model(f"msm/{given.model}", device=given.device)
    loaded = model.api.engine.loaded
    reference: Any = (
        AutoModelForCausalLM.from_pretrained(resolve(given.model).path, dtype=loaded.dtype).to(loaded.device).eval()
    )
    rounds = []
    for _ in range(given.rounds):
        seconds, computed, asked = by_engine(model, given.value, given.limit)
        plain, worst = by_passes(reference, asked, sparing=False)
        sparing, _ = by_passes(reference, asked, sparing=True)
        one = {"engine": seconds, "passes": plain, "sparing_passes": sparing, "largest_difference": worst}
        rounds.append(one | {"times_faster": plain / seconds, "than_sparing": sparing / seconds})
    result = {
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "samples": given.limit,
        "candidates": sum(len(candidates) for _, candidates, _ in asked),
        "tokens_by_engine": computed,
        "tokens_by_passes": sum(len(prompt) + len(tokens) for prompt, candidates, _ in asked for tokens in candidates),
        "times_faster": spread([one["times_faster"] for one in rounds]),
        "than_sparing": spread([one["than_sparing"] for one in rounds]),
        "rounds": rounds,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
