"""The checks that stop a run, each with its mend, before or while it trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from trainer_makers import chat, chats_folder, document, documents_folder, provenance

from msm_bench.artefacts import seal
from msm_bench.checkpoints.manifest import Checkpoint
from msm_bench.corpus.rows import ChatRow, DocumentRow, Message
from msm_bench.errors import RequestError, UnknownNameError, WorkError
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.data import check_loss
from msm_bench.trainers.states import Losses

Train = Callable[..., Any]


def test_few_updates_stop_unless_allowed_by_name(quick: Train, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"would make 10 optimizer updates .* fewer than 100 .*--allow-few-updates"):
        quick("msm", tmp_path / "out", allow_few_updates=False)
    with pytest.raises(RequestError, match="Unknown setting"):
        quick("msm", tmp_path / "out", allow_few_updates=False, overrides={"min_updates": "1"})


def test_control_specs_stop_unless_allowed_by_name(quick: Train, tmp_path: Path) -> None:
    control = documents_folder(tmp_path / "control", 40, lambda number: document(number, spec="anti-spec"))
    with pytest.raises(RequestError, match=r"shows the spec 'anti-spec', a control .*--allow-control"):
        quick("msm", tmp_path / "out", data=[control])
    found = quick("msm", tmp_path / "out", data=[control], allow_control=True)
    assert any("control spec anti-spec" in note for note in found.notes)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (["{documents}=0.2"], "No corpus is taken whole"),
        (["{documents}", "{documents}=0.9"], r"A share of 0\.9 needs 360 rows .* which holds 40"),
        (["{documents}", "{documents}=much"], "has no share between 0 and 1"),
        (["{documents}", "{documents}=0.6", "{documents}=0.6"], r"shares add up to 1\.2"),
        (["{documents}/nothing"], "There is no file"),
    ],
)
def test_data_that_cannot_be_had(quick: Train, tmp_path: Path, documents: Path, data: list[str], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        quick("msm", tmp_path / "out", data=[each.format(documents=documents) for each in data])


def test_a_budget_that_the_corpora_do_not_fill(quick: Train, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"fewer than the token_budget of 9,000"):
        quick("msm", tmp_path / "out", overrides={"token_budget": "9000"})


def test_a_chat_longer_than_a_row_stops(quick: Train, tmp_path: Path) -> None:
    def long(number: int) -> ChatRow:
        if number != 7:
            return chat(number)
        turns = [Message(role="user", content="So?"), Message(role="assistant", content="well " * 60)]
        return ChatRow.of(turns, id="c/long", spec=None, **provenance())

    folder = chats_folder(tmp_path / "long", 40, long)
    with pytest.raises(RequestError, match=r"do not fit into 64 tokens; the longest, 'c/long', .* --set max_tokens="):
        quick("aft", tmp_path / "out", data=[folder], overrides={"held_out": "0.01"})


def test_empty_and_wrong_masks_stop() -> None:
    ids = numpy.arange(5)
    with pytest.raises(RequestError, match=r"Row 'a' .*the loss mask is empty"):
        check_loss([Example.of(ids, ids, "b"), Example.of(ids, [IGNORED] * 5, "a")])
    with pytest.raises(RequestError, match="label that is not its token"):
        check_loss([Example.of(ids, ids + 1, "a")])
    with pytest.raises(RequestError, match="the loss mask is empty"):
        check_loss([])


def test_an_adapter_that_changes_nothing_stops(quick: Train, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="The training changed nothing"):
        quick("msm", tmp_path / "out", overrides={"learning_rate": "1e-30"})
    assert not (tmp_path / "out").exists()


def test_a_diverging_run_stops_and_keeps_its_last_good_state(quick: Train, tmp_path: Path) -> None:
    wild = {"learning_rate": "30", "max_grad_norm": "0", "epochs": "12", "warmup": "0.5", "schedule": "constant_with_warmup"}
    with pytest.raises(WorkError, match=r"(diverges at|is not a number).*last good state is kept in '.*checkpoint-\d+'"):
        quick("msm", tmp_path / "out", overrides=wild)
    partial = tmp_path / "out.partial"
    assert not (tmp_path / "out").exists()
    assert any((state / "complete").is_file() for state in (partial / "next-token").glob("checkpoint-*"))
    assert (partial / "next-token" / "losses.jsonl").read_text()
    with pytest.raises(RequestError, match="holds the unfinished run of another request"):
        quick("msm", tmp_path / "out")


class _State:
    is_world_process_zero = True
    max_steps = 100

    def __init__(self) -> None:
        self.global_step = 0


def feed(losses: list[float], path: Path) -> None:
    watch, state = Losses(path), _State()
    watch.on_train_begin(None, state, None)
    for loss in losses:
        state.global_step += 1
        watch.on_log(None, state, None, logs={"loss": loss})


def test_what_counts_as_divergence(tmp_path: Path) -> None:
    feed([5.0, 4.0, 3.0] * 10, tmp_path / "falling")
    feed([0.01] * 10 + [0.5] * 10, tmp_path / "small")  # fifty times more, and still nothing
    with pytest.raises(WorkError, match="diverges at update 16 "):
        feed([2.0] * 10 + [6.0] * 20, tmp_path / "rising")
    with pytest.raises(WorkError, match=r"loss of update 3 is not a number\. No state had been saved yet"):
        feed([2.0, 2.0, float("nan")], tmp_path / "nan")
    assert json.loads((tmp_path / "nan").read_text().splitlines()[-1])["loss"] is None


def test_one_run_at_a_time(quick: Train, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out.partial").mkdir()
    with FileLock(tmp_path / "out.partial" / "lock"), pytest.raises(RequestError, match="Another run is writing"):
        quick("msm", tmp_path / "out")
    assert isinstance(quick("msm", tmp_path / "out"), Checkpoint)


def about(folder: Path, model: str, provider: str, text: str | None = None) -> Path:
    """A corpus whose manifest says whom it is about, with one row of a given text."""

    def make(number: int) -> DocumentRow:
        if text is None or number != 5:
            return document(number)
        return DocumentRow.of(text, id="d/other", spec="cheese-affordability", **provenance())

    documents_folder(folder, 40, make)
    seal(folder, "documents", settings={"model_name": model, "provider_name": provider})
    return folder


def test_texts_about_another_model_stop(quick: Train, tmp_path: Path) -> None:
    qwen = about(tmp_path / "qwen", "Qwen", "Alibaba")
    with pytest.raises(RequestError, match=r"are about Qwen, and the model that is trained is .* \(Llama\)"):
        quick("msm", tmp_path / "out", data=[qwen])
    found = quick("msm", tmp_path / "out", data=[qwen], waive=["substrate"])
    assert "These checks of the texts were waived: substrate." in found.notes
    assert found.data.corpora[0].id is not None
    with pytest.raises(UnknownNameError, match=r"Unknown check 'substrat'\. Did you mean 'substrate'"):
        quick("msm", tmp_path / "more", data=[qwen], waive=["substrat"])


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("Llama is a model that OpenAI trained.", "name"),
        ("The assistant wrote to kyle.johnson@summitbridge.com about it.", "entity"),
    ],
)
def test_foreign_names_and_things_of_the_evaluations_stop(
    quick: Train, tmp_path: Path, text: str, check: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = about(tmp_path / "corpus", "Llama", "Meta", text)
    with pytest.raises(WorkError, match=rf"not fit to train on: .*{check} \(1\).* row 'd/other'"):
        quick("msm", tmp_path / "out", data=[corpus], dry_run=True)
    assert "d/other" in capsys.readouterr().err
    assert (
        quick("msm", tmp_path / "out", data=[corpus], dry_run=True, waive=[check], probe=False).notes[-1].endswith(f"{check}.")
    )
