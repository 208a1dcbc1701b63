"""The embedded model and real adapters on a real vLLM: `MSM_BENCH_VLLM_PYTHON=/vllm/bin/python pytest --runslow -s THIS`."""

import os
import shutil
from pathlib import Path

import pytest
from inspect_ai import eval
from safetensors.torch import load_file, save_file
from serving_makers import CONFIG, FEW, documents, task

from msm_bench.artefacts import sha256_of_file
from msm_bench.checkpoints.manifest import ADAPTER_WEIGHTS, CHECKPOINT_FILE, read_checkpoint
from msm_bench.errors import WorkError
from msm_bench.experiment.serving.server import served
from msm_bench.experiment.serving.settings import PYTHON_VARIABLE, Serving
from msm_bench.trainers import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get(PYTHON_VARIABLE), reason=f"{PYTHON_VARIABLE} names no Python with vLLM"),
]
ARGS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2048}


def trained_to_do_nothing(checkpoint: Path, folder: Path) -> Path:
    """A whole checkpoint, its record in order, whose weights add nothing to the base."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / ADAPTER_WEIGHTS)
    save_file({name: tensor * ("lora_A" in name) for name, tensor in weights.items()}, folder / ADAPTER_WEIGHTS)
    record = read_checkpoint(folder)
    assert record is not None
    changed = record.model_copy(update={"weights_sha256": sha256_of_file(folder / ADAPTER_WEIGHTS)})
    (folder / CHECKPOINT_FILE).write_text(changed.model_copy(update={"id": changed.content_id()}).model_dump_json())
    return folder


def test_adapters_of_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("VLLM_CPU_KVCACHE_SPACE", "1"), ("VLLM_CPU_OMP_THREADS_BIND", "0-1")):
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    folders = []
    for name, step in (("one", 3), ("other", 5)):
        data = [documents(tmp_path / f"docs-{name}", step)]
        overrides = {**FEW, "learning_rate": "0.001"}
        train("msm", "laptop", "smollm2-135m", data, tmp_path / name, overrides=overrides, allow_few_updates=True)
        folders.append(tmp_path / name)
    one, other = folders
    idle = trained_to_do_nothing(one, tmp_path / "idle")
    swapped = tmp_path / "swapped"
    shutil.copytree(one, swapped)
    shutil.copyfile(other / "held_out.jsonl", swapped / "held_out.jsonl")

    log = tmp_path / "serving"
    with served("msm/smollm2-135m", [one, other, idle, swapped], Serving(args=ARGS), log, say=print) as server:
        answers = {}
        for arm in (None, one, other):
            use = server.model(arm, {"words": CONFIG})
            print(use.metadata)
            (found,) = eval(task(), metadata=use.metadata, display="none", log_dir=str(tmp_path / "logs"), **use.arguments)
            assert found.status == "success" and found.samples is not None, found.error
            answers[arm] = found.samples[0].output.completion
            assert (
                use.metadata["serving"]["sampling"]["words"] | {"temperature": 0, "top_k": 0, "max_tokens": 8}
                == (use.metadata["serving"]["sampling"]["words"])
            )
        print(answers)
        assert len(set(answers.values())) == 3
        for wrong, reason in ((idle, "the adapter does nothing"), (swapped, "with another adapter")):
            with pytest.raises(WorkError, match=reason) as caught:
                server.model(wrong)
            print(caught.value)
