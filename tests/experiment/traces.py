"""A small `cheese-laptop`, and what it leaves on disk: results to compare, and traces that show work done twice."""

import json
import math
from pathlib import Path
from typing import Any

from inspect_ai.log import list_eval_logs, read_eval_log

from msm_bench.experiment.cells import plan
from msm_bench.experiment.places import Places, is_done
from msm_bench.experiment.settings import Experiment, load_experiment

FEW = {"max_tokens": 256, "rank": 2, "alpha": 4, "batch_rows": 4, "micro_batch_rows": 4, "epochs": 1, "held_out": 0.2}
KEEP = {"save_every": 1}


def shrunk(base: str, **changes: Any) -> Experiment:
    """`cheese-laptop` with all its arms, on tiny corpora, with few updates and few probes, and a state after every update."""
    small: dict[str, Any] = {
        "base": base,
        "overrides": {"msm": {**FEW, **KEEP}, "aft": {**FEW, **KEEP}},
        "corpora": {"offline": True, "documents": 5, "chats": 24, "model_name": "SmolLM", "provider_name": "Hugging Face"},
        "evals": [
            {
                "task": "value_preferences",
                "args": {"value": "affordability,america", "method": "likelihood", "kind": "item", "limit_per_value": 2},
            }
        ],
        "model_args": {"dtype": "float32", "device": "cpu"},
        "allow_few_updates": True,
        "waive": ["substrate"],
    }
    whole = load_experiment("cheese-laptop").model_dump(mode="json")
    return Experiment.model_validate({**whole, **small, **changes})


def results(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """What came out, without anything that differs between two runs of the same work.

    Fails where a cell has other than one log a task, a sample stands twice or an update was written twice.
    """
    places, found = Places.of(experiment, folder / "runs", folder / "logs"), {}
    made = plan(experiment)
    for corpus in made.corpora:
        found[corpus.name] = json.loads((places.folder(corpus) / "manifest.json").read_text())["id"]
    for cell in made.training:
        record = json.loads((places.folder(cell) / "checkpoint.json").read_text())
        updates = [json.loads(line)["update"] for line in (places.folder(cell) / "losses.jsonl").read_text().splitlines()]
        assert updates == list(range(1, record["updates"] + 1)), f"{cell.name}: {updates}"
        found[cell.name] = record["id"], record["weights_sha256"]
    for cell in made.evaluations:
        logs = [read_eval_log(info) for info in list_eval_logs(str(places.folder(cell)))]
        assert len(logs) == len(experiment.evals) and all(log.status == "success" for log in logs), cell.name
        for log in logs:
            keys = [(sample.id, sample.epoch) for sample in log.samples or []]
            assert len(set(keys)) == len(keys) == len(log.eval.dataset.sample_ids or []) * (log.eval.config.epochs or 1)
            scores = {
                f"{sample.id}/{sample.epoch}": {name: score.value for name, score in (sample.scores or {}).items()}
                for sample in log.samples or []
            }
            found[f"{cell.name}: {log.eval.task}"] = json.loads(json.dumps(scores, sort_keys=True))
    return found


def same(one: Any, two: Any) -> bool:
    """Whether two results are equal; numbers up to the rounding of sums whose order depends on what was in a batch together."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, abs_tol=1e-5)
    return bool(one == two)


def trace(experiment: Experiment, folder: Path) -> dict[str, str]:
    """What is finished on disk now, each with a mark that another making of it would change.

    Corpora and checkpoints by the time of their record, the updates up to the last whole state by their lines of losses,
    samples by the id that Inspect gives every run of one.
    """
    places, found = Places.of(experiment, folder / "runs", folder / "logs"), {}
    made = plan(experiment)
    for corpus in made.corpora:
        if is_done(corpus, places):
            found[corpus.name] = str((places.folder(corpus) / "manifest.json").stat().st_mtime_ns)
    for cell in made.training:
        if is_done(cell, places):
            found[cell.name] = str((places.folder(cell) / "checkpoint.json").stat().st_mtime_ns)
        part = places.folder(cell) if is_done(cell, places) else places.partial(cell) / "next-token"
        losses = part / "losses.jsonl"
        lines = losses.read_text().splitlines() if losses.is_file() else []
        states = [int(path.parent.name.rpartition("-")[2]) for path in part.glob("checkpoint-*/complete")]
        whole = len(lines) if is_done(cell, places) else max(states, default=0)
        found |= {f"{cell.name}: update {number}": line for number, line in enumerate(lines[:whole], 1)}
    for cell in made.evaluations:
        for info in list_eval_logs(str(places.folder(cell))) if places.folder(cell).is_dir() else []:
            try:
                samples = read_eval_log(info).samples or []
            except (OSError, KeyError, ValueError):  # replaced by a newer one between the listing and the look
                continue
            for sample in samples:
                if sample.error is None:
                    found[f"{cell.name}: {sample.id}/{sample.epoch}"] = str(sample.uuid)
    return found
