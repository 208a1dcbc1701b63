"""Adapters evaluated by name on one server through Inspect's own provider, and those that a server serves wrongly."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_ai import eval
from inspect_ai.log import EvalLog
from inspect_ai.model import GenerateConfig
from serving_makers import CONFIG, Serve, Trained, task
from tiny_models import make_model

from msm_bench.checkpoints import resolve
from msm_bench.errors import RequestError, WorkError
from msm_bench.experiment.serving.adapters import find_adapters
from msm_bench.experiment.serving.server import Server, Use


@pytest.fixture(scope="module")
def server(serve: Serve, trained: Trained) -> Iterator[Server]:
    """Four adapters served as they are, and three copies of a checkpoint that are not."""
    copies = [trained.copy_of_one(name) for name in ("to-base", "zeroed", "swapped")]
    faults = {"to-base": "base", "zeroed": "zero", "swapped": str(trained.other)}
    with serve(trained.one, trained.other, trained.elsewhere, trained.idle, *copies, faults=faults) as running:
        yield running


def run(use: Use) -> EvalLog:
    (log,) = eval(task(), metadata=use.metadata, display="none", log_format="json", **use.arguments)
    assert log.status == "success", log.error
    return log


def answer(log: EvalLog) -> str:
    assert log.samples is not None
    return log.samples[0].output.completion


def test_arms_are_evaluated_by_name_on_one_server(
    server: Server, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    logs = {arm: run(server.model(arm, {"words": CONFIG})) for arm in (None, trained.one, trained.other)}
    assert [log.eval.model for log in logs.values()] == ["vllm/tiny-base", "vllm/tiny-base:one", "vllm/tiny-base:other"]
    assert len({answer(log) for log in logs.values()}) == 3
    for arm, log in logs.items():
        assert log.samples is not None and log.samples[0].output.model == ("tiny-base" if arm is None else arm.name)
    found = (logs[trained.one].eval.metadata or {})["serving"]
    assert found["version"] == "stand-in" and found["adapter_check"]["kind"] == "held_out"
    assert found["adapter_check"]["off_recorded"] < 1e-4 < 0.05 < found["adapter_check"]["off_base"]
    assert found["sampling"]["words"]["temperature"] == 0 and found["sampling"]["words"]["max_tokens"] == 8


def test_what_the_server_computes_is_what_the_trainer_measured(server: Server, trained: Trained) -> None:
    (adapter,) = [each for each in server.adapters.values() if each.folder == trained.other]
    assert adapter.rows is not None and len(adapter.rows) == 6
    for row in adapter.rows:
        for name, recorded in (("other", row.loss), ("tiny-base", row.loss_base)):
            losses = server.client.losses(name, row.ids, row.scored)
            assert sum(losses) / len(losses) == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("to-base", "with the base alone, the adapter does nothing"),
        ("zeroed", "with the base alone, the adapter does nothing"),
        ("swapped", "with another adapter than the checkpoint's"),
    ],
)
def test_an_adapter_that_is_served_wrongly_is_caught(server: Server, trained: Trained, name: str, reason: str) -> None:
    with pytest.raises(WorkError, match=reason) as caught:
        server.model(trained.copy_of_one(name))
    rows = server.adapters[trained.copy_of_one(name)].rows
    assert rows is not None
    numbers = [float(number) for number in re.findall(r"\d+\.\d{4}", str(caught.value))]
    tokens = sum(len(row.scored) for row in rows)
    recorded = [sum(len(row.scored) * getattr(row, key) for row in rows) / tokens for key in ("loss", "loss_base")]
    assert numbers[1:3] == pytest.approx(recorded, abs=1e-4)
    assert (numbers[0] == pytest.approx(recorded[1], abs=1e-3)) == (name != "swapped")
    assert numbers[3] == pytest.approx(recorded[1], abs=1e-3)


def test_the_others_go_on_when_one_is_caught(server: Server, trained: Trained) -> None:
    with pytest.raises(WorkError):
        server.model(trained.copy_of_one("zeroed"))
    assert server.model(None).arguments["model"] == "vllm/tiny-base"


def test_an_adapter_without_a_record_must_at_least_do_something(server: Server, trained: Trained) -> None:
    found = server.model(trained.elsewhere).metadata["serving"]["adapter_check"]
    assert found["kind"] == "differs_from_base" and found["off_base"] > 0.01
    with pytest.raises(WorkError, match="the adapter does nothing"):
        server.model(trained.idle)


def test_a_parameter_that_would_not_arrive_stops_the_arm(server: Server) -> None:
    # Inspect's vllm/ provider does not send top_k.
    with pytest.raises(WorkError, match="'t' asks for top_k 5, and the server would sample with 0"):
        server.model(None, {"t": GenerateConfig(top_k=5)})
    sent = server.model(None, {"t": GenerateConfig(top_k=5, extra_body={"top_k": 5})})
    assert sent.metadata["serving"]["sampling"]["t"]["top_k"] == 5


def test_a_second_server_of_a_base_would_get_its_requests_from_the_first(server: Server, serve: Serve) -> None:
    with pytest.raises(RequestError, match="serves a base called 'tiny-base' already"), serve():
        pass


def test_a_checkpoint_without_held_out_rows_is_refused(trained: Trained) -> None:
    folder = trained.copy_of_one("rowless")
    (folder / "held_out.jsonl").unlink()
    with pytest.raises(RequestError, match=r"has no held_out\.jsonl"):
        find_adapters(resolve(str(trained.base)), "tiny-base", [folder])


def test_an_adapter_of_another_base_is_refused(trained: Trained, tmp_path: Path) -> None:
    stranger = resolve(str(make_model(tmp_path / "stranger", "llama", seed=1)))
    with pytest.raises(RequestError, match="is no adapter of"):
        find_adapters(stranger, "stranger", [trained.one])
