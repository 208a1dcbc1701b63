"""Whole runs on a tiny model: what is written, whose weights, and that plain peft and the engine see the same model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai.model import ChatMessageUser, get_model
from peft import AutoPeftModelForCausalLM, PeftModel
from rich.console import Console
from trainer_makers import FAST, chat, chats_folder, document, documents_folder, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import msm_bench.engine.registration  # noqa: F401  (makes `msm/` known to Inspect)
from msm_bench.artefacts import sha256_of_file
from msm_bench.checkpoints import resolve
from msm_bench.checkpoints.manifest import Checkpoint, read_checkpoint
from msm_bench.engine import loglikelihood
from msm_bench.engine.loading import load
from msm_bench.engine.settings import Settings
from msm_bench.errors import CorruptWeightsError, RequestError
from msm_bench.trainers import train
from msm_bench.trainers.card import render
from msm_bench.trainers.saving import cosine

Train = Callable[..., Any]


def test_a_checkpoint_and_its_record(base: Path, documents: Path, midtrained: tuple[Path, Checkpoint]) -> None:
    out, found = midtrained
    assert read_checkpoint(out) == found
    assert found.trainer == "msm" and found.parent is None
    assert found.base.sha256 == sha256_of_file(base / "model.safetensors")
    assert found.weights_sha256 == sha256_of_file(out / "adapter_model.safetensors")
    assert found.recipe["settings"]["rank"] == 4 and found.recipe["sources"]["rank"]["source"] == "--set"
    assert (found.data.rows, found.data.held_out, found.data.split) == (38, 2, 0)
    assert found.data.loss_tokens == found.data.tokens - found.data.rows
    assert found.data.corpora[0].sha256 == sha256_of_file(documents / "documents.jsonl")
    assert found.data.corpora[0].specs == ("cheese-affordability",)
    assert found.metrics["held_out"] < found.metrics["held_out_start"] == found.metrics["held_out_base"]
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == list(range(1, found.updates + 1))
    assert sum(line["tokens"] for line in lines) == found.data.tokens * 2
    assert not out.with_name("msm.partial").exists()


def test_the_card_says_what_was_chosen(midtrained: tuple[Path, Checkpoint]) -> None:
    text = (midtrained[0] / "card.md").read_text(encoding="utf-8")
    assert "| seed | 0 | chosen | any |" in text
    assert "| weight_decay | 0.01 | paper B.4 |" in text
    assert "fewer than 100, as was asked for" in text
    assert f"checkpoint `{midtrained[1].id[:12]}`" in text


def test_a_checkpoint_is_shown(midtrained: tuple[Path, Checkpoint], capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=120).print(render(midtrained[1]))
    shown = capsys.readouterr().out
    for part in (midtrained[1].id[:12], "held-out loss after training", "fresh adapter", "fewer than 100"):
        assert part in shown


def test_plain_peft_and_the_engine_see_the_same_model(base: Path, midtrained: tuple[Path, Checkpoint]) -> None:
    out, _ = midtrained
    ids = torch.arange(7, 27)[None]
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(out)).eval()
    auto = AutoPeftModelForCausalLM.from_pretrained(str(out), dtype=torch.float32).eval()
    untrained = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    ours = load(resolve(str(out)), Settings(dtype="float32", device="cpu")).model
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        torch.testing.assert_close(auto(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
        assert (untrained(input_ids=ids).logits - expected).abs().max() > 1e-3


@pytest.mark.anyio
async def test_the_engines_likelihood_is_that_of_plain_peft(base: Path, midtrained: tuple[Path, Checkpoint]) -> None:
    out = midtrained[0]
    tokenizer = AutoTokenizer.from_pretrained(out)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Which?"}], tokenize=False, add_generation_prompt=True)
    begun, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, "Colby because"))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(out)).eval()
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([begun + said])).logits[0, len(begun) - 1 : -1].log_softmax(-1)
    expected = float(logits[torch.arange(len(said)), torch.tensor(said)].sum())
    model = get_model(f"msm/{out}", memoize=False, dtype="float32", device="cpu")
    try:
        [scored] = await loglikelihood(model, [ChatMessageUser(content="Which?")], ["Colby because"])
    finally:
        model.api.close()
    assert scored.n_tokens == len(said)
    assert scored.logprob_sum == pytest.approx(expected, abs=1e-3)


def test_aft_continues_its_parent(midtrained: tuple[Path, Checkpoint], quick: Train, tmp_path: Path) -> None:
    parent, record = midtrained
    found = quick("aft", tmp_path / "aft", parent=parent)
    assert found.parent.id == record.id and found.parent.sha256 == record.weights_sha256
    assert found.base == record.base
    assert 0.7 < found.metrics["parent_cosine"] < 0.99999
    # Its start is the parent's end, not the base: the adapter was continued.
    assert found.metrics["held_out_start"] != pytest.approx(found.metrics["held_out_base"], abs=1e-4)
    alone = quick("aft", tmp_path / "alone")
    assert alone.data == found.data and alone.id != found.id
    weights = "adapter_model.safetensors"
    # The same seed, so the same start, but no continuation: the B matrices share nothing.
    assert cosine(parent / weights, tmp_path / "alone" / weights) < 0.7


def test_equal_work_gives_equal_ids_and_other_seeds_do_not(
    midtrained: tuple[Path, Checkpoint], quick: Train, tmp_path: Path
) -> None:
    again = quick("msm", tmp_path / "again")
    assert again.id == midtrained[1].id
    assert (tmp_path / "again" / "losses.jsonl").read_text() == (midtrained[0] / "losses.jsonl").read_text()
    other = quick("msm", tmp_path / "other", overrides={"seed": "1"})
    assert other.id != again.id and other.weights_sha256 != again.weights_sha256


def test_a_finished_run_is_not_made_twice(
    midtrained: tuple[Path, Checkpoint], base: Path, documents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*unused: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("msm_bench.trainers.loading.load_model", refuse)
    out, found = midtrained
    assert train("msm", "laptop", str(base), [documents], out, overrides=FAST, allow_few_updates=True) == found
    with pytest.raises(RequestError, match="is not the checkpoint of this request"):
        train("msm", "laptop", str(base), [documents], out, overrides={**FAST, "seed": "5"}, allow_few_updates=True)


def test_the_template_that_was_trained_is_saved(tmp_path: Path, chats: Path) -> None:
    from trainer_makers import make_tokenizer

    base = make_model(tmp_path / "base", tokenizer=make_tokenizer(template=None))
    settings = {**FAST, "chat_template": "plain-headers"}
    found = train("aft", "laptop", str(base), [chats], tmp_path / "aft", overrides=settings, allow_few_updates=True)
    assert isinstance(found, Checkpoint)
    saved = AutoTokenizer.from_pretrained(resolve(str(tmp_path / "aft")).template_source)
    assert "<|start_header_id|>" in saved.chat_template


def test_accumulation_does_not_change_the_losses(quick: Train, tmp_path: Path) -> None:
    """Two rows in one forward pass, or one after the other: token-weighted, so the same updates."""
    losses = []
    for micro in ("1", "2"):
        out = tmp_path / micro
        quick("msm", out, overrides={"micro_batch_rows": micro, "packing": "false"})
        losses.append([json.loads(line)["loss"] for line in (out / "losses.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_shares_budgets_and_what_the_record_says(quick: Train, tmp_path: Path, documents: Path) -> None:
    mix = documents_folder(tmp_path / "mix", 40, lambda number: document(number + 500, spec=None))
    found = quick("msm", tmp_path / "out", data=[documents, f"{mix}=0.2"], overrides={"token_budget": "400"})
    whole, part = found.data.corpora
    assert (whole.used, part.used, part.rows) == (40, 10, 40)
    assert 400 <= found.data.tokens < 430


def test_long_documents_are_split_and_counted(quick: Train, tmp_path: Path) -> None:
    long = documents_folder(tmp_path / "long", 8, lambda number: document(number, words=60 if number == 3 else 12))
    found = quick("msm", tmp_path / "out", data=[long], overrides={"epochs": "4"})
    assert found.data.split <= 1 and found.data.examples == found.data.rows + found.data.split
    assert "became several sequences" in (tmp_path / "out" / "card.md").read_text() or not found.data.split


@pytest.mark.parametrize("damage", ["weights", "record", "base"])
def test_a_parent_that_is_not_what_it_says(
    midtrained: tuple[Path, Checkpoint], base: Path, quick: Train, tmp_path: Path, damage: str
) -> None:
    import shutil

    own_base = Path(shutil.copytree(base, tmp_path / "base"))
    parent = Path(shutil.copytree(midtrained[0], tmp_path / "parent"))
    config = json.loads((parent / "adapter_config.json").read_text())
    (parent / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(own_base)}))
    if damage == "weights":
        bits = bytearray((parent / "adapter_model.safetensors").read_bytes())
        bits[-1] ^= 1
        (parent / "adapter_model.safetensors").write_bytes(bytes(bits))
    elif damage == "record":
        text = (parent / "checkpoint.json").read_text().replace('"trainer": "msm"', '"trainer": "aft"')
        (parent / "checkpoint.json").write_text(text)
    else:
        make_model(own_base, seed=9)
    with pytest.raises(CorruptWeightsError, match=r"not those|id is not the hash|other weights"):
        quick("aft", tmp_path / "out", parent=parent)
    assert not (tmp_path / "out").exists()


def test_a_parent_of_another_shape_or_base(midtrained: tuple[Path, Checkpoint], quick: Train, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="r is 4 in the parent and 8 in the recipe"):
        quick("aft", tmp_path / "out", parent=midtrained[0], overrides={"rank": "8"})
    other = make_model(tmp_path / "other", seed=3)
    with pytest.raises(RequestError, match="is an adapter of another model"):
        quick("aft", tmp_path / "out", parent=midtrained[0], model=str(other))
    with pytest.raises(RequestError, match=r"is an adapter, and --model names full weights\. Use --from"):
        quick("aft", tmp_path / "out", model=str(midtrained[0]))


def test_deliberative_needs_reasoning(quick: Train, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="None of the 38 chats holds reasoning"):
        quick("deliberative", tmp_path / "out")
    thought = chats_folder(tmp_path / "thought", 40, lambda number: chat(number, reasoning=True))
    with pytest.raises(RequestError, match="without reasoning is AFT"):
        quick("deliberative", tmp_path / "out", data=[thought], overrides={"reasoning": "false"})
    found = quick("deliberative", tmp_path / "out", data=[thought])
    without = quick("aft", tmp_path / "aft", data=[thought], overrides={"reasoning": "false"})
    assert found.data.loss_tokens > without.data.loss_tokens
