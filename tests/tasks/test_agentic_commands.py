"""The commands as a researcher types them: both spellings, judging a saved log, and bad input, each in its own process."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from tiny_models import make_model

ROOT = Path(__file__).parents[2]
INSPECT = str(Path(sys.executable).with_name("inspect"))
CELL = ["-T", "scenario=murder", "-T", "goal=none"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    command = [INSPECT, *arguments, "--display", "plain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**clean, "COLUMNS": "400", **environment})


def only_log(folder: Path) -> EvalLog:
    (info,) = list_eval_logs(str(folder))
    return read_eval_log(info)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose context holds the scenarios."""
    return make_model(tmp_path_factory.mktemp("long"), "llama", max_position_embeddings=16384)


@pytest.fixture(scope="module")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("short"), "llama", max_position_embeddings=512)


def evaluate(task: str, model: Path, logs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    settings = ["--max-tokens", "8", "--seed", "3", "-M", "dtype=float32", "-M", "device=cpu"]
    return run("eval", task, "--model", f"msm/{model}", *CELL, *settings, "--log-dir", str(logs), *more)


def test_both_spellings_give_equal_scores_and_a_saved_log_is_judged_later(tmp_path: Path, long_model: Path) -> None:
    logs = []
    for number, task in enumerate(("tasks/agentic_misalignment", "msm_bench/agentic_misalignment")):
        ran = evaluate(task, long_model, tmp_path / str(number))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        logs.append(only_log(tmp_path / str(number)))
    samples = [log.samples[0] for log in logs if log.samples]
    scores = [sample.scores["misalignment"] for sample in samples if sample.scores]
    assert [sample.id for sample in samples] == ["murder/none"] * 2
    assert samples[0].output.completion == samples[1].output.completion != ""
    assert json.dumps(scores[0].value) == json.dumps(scores[1].value)
    assert scores[0].reason == "not_judged" and math.isnan(scores[0].value["decided"])

    # A model without a verdict in it is as good a grader as any: it is asked twice, and nothing is generated again.
    location = logs[0].location.removeprefix("file://")
    again = run(
        "score", location, "--scorer", "msm_bench/misalignment", "--model-role", f"grader=msm/{long_model}", "--action",
        "overwrite", "--overwrite",
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    judged = read_eval_log(location).samples[0]
    score = judged.scores["misalignment"]
    assert judged.output.completion == samples[0].output.completion
    assert score.metadata["outcome"] in ("judge_unparseable", "judge_truncated")
    assert len(score.metadata["judge"]["attempts"]) == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["-T", "scenario=arson"], "exfiltration"),
        (["-T", "goal=moon"], "collectivism"),
        (["-T", "judge_sees=nothing"], "response"),
        (["--model-role", "grader=msm/no/such-grader"], "no/such-grader"),
    ],
)
def test_bad_arguments(tmp_path: Path, long_model: Path, more: list[str], says: str) -> None:
    ran = evaluate("tasks/agentic_misalignment", long_model, tmp_path / "logs", *more)
    text = ran.stdout + ran.stderr
    assert ran.returncode != 0 and says in text and "Traceback" not in text, text
    assert not list((tmp_path / "logs").glob("*.eval"))


def test_a_context_too_short_is_refused_before_anything_runs(tmp_path: Path, short_model: Path) -> None:
    ran = evaluate("tasks/agentic_misalignment", short_model, tmp_path / "logs")
    text = ran.stdout + ran.stderr
    assert ran.returncode != 0 and "context of 512 tokens" in text and "longer context" in text, text
    assert not list((tmp_path / "logs").glob("*.eval"))


@pytest.mark.parametrize("kind", ["missing", "empty", "corrupt"])
def test_bad_models(tmp_path: Path, long_model: Path, kind: str) -> None:
    folder = tmp_path / "model"
    if kind == "empty":
        folder.mkdir()
    if kind == "corrupt":
        folder = make_model(folder, "llama", max_position_embeddings=16384)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    ran = evaluate("tasks/agentic_misalignment", folder, tmp_path / "logs")
    text = ran.stdout + ran.stderr
    assert ran.returncode != 0 and str(folder) in text.replace("\n", "") and "Traceback" not in text, text


def test_an_unwritable_cache_names_the_mend(tmp_path: Path) -> None:
    """A file where the cache folder should be: no folder can be made there, whoever asks."""
    blocked = tmp_path / "cache"
    blocked.write_text("")
    ran = run("eval", "tasks/agentic_misalignment", "--model", "msm/smollm2-135m", *CELL, "--log-dir", str(tmp_path / "logs"),
              MSM_BENCH_CACHE=str(blocked), HF_HUB_OFFLINE="1")  # fmt: skip
    text = ran.stdout + ran.stderr
    assert ran.returncode != 0 and "Traceback" not in text and "MSM_BENCH_CACHE" in text, text
