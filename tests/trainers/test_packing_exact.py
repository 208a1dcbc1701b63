"""Packed rows train as if every document stood alone."""

from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_makers import make_model
from transformers import AutoModelForCausalLM

from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.fitting import without_cache
from msm_bench.trainers.packing import Collate, order, pack, sizes


def example(length: int, seed: int) -> Example:
    ids = numpy.random.default_rng(seed).integers(6, 300, length)
    return Example.of(ids, ids, row=str(seed))


@given(st.lists(st.integers(1, 32), max_size=60), st.integers(32, 64))
def test_every_example_is_in_one_row_and_fits(lengths: list[int], room: int) -> None:
    rows = pack(lengths, room, packing=True)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= room for row in rows)
    # Best fit leaves at most one row half empty.
    assert sum(2 * sum(lengths[index] for index in row) <= room for row in rows) <= 1


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 7), st.booleans())
def test_a_run_sees_every_example_once_an_epoch(count: int, epochs: int, batch: int, packing: bool) -> None:
    examples = [example(2 + seed % 5, seed) for seed in range(count)]
    rows = order(examples, 8, packing, epochs, batch, seed=3)
    assert len(rows) % batch == 0
    seen = [index for row in rows for index in row]
    assert sorted(seen) == sorted(list(range(count)) * epochs)
    assert all(row == () for row in rows[len(rows) - sum(row == () for row in rows) :])
    assert rows == order(examples, 8, packing, epochs, batch, seed=3)


def test_epochs_and_seeds_differ_in_their_order() -> None:
    examples = [example(5, seed) for seed in range(30)]
    rows = order(examples, 8, False, 2, 1, seed=0)
    assert rows[:30] != rows[30:]
    assert rows != order(examples, 8, False, 2, 1, seed=1)


def test_sizes_count_padding_of_each_forward_pass() -> None:
    examples = [example(4, 0), example(2, 1), example(6, 2)]
    counted = sizes(examples, [(0,), (1,), (2,), ()], batch_rows=2, micro_batch_rows=2)
    assert (counted.rows, counted.updates, counted.tokens, counted.loss_tokens) == (3, 2, 12, 9)
    assert counted.padding == pytest.approx(1 - 12 / (8 + 12))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_equals_alone(tmp_path: Path, kind: str, attention: str) -> None:
    folder = make_model(tmp_path / "model", kind, head_dim=8)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).train()
    examples = [example(length, length) for length in (9, 1, 17, 5, 12)]
    rows = [(0, 1, 2), (3, 4)]
    batch = Collate(pad=0)([[examples[index] for index in row] for row in rows])
    with without_cache(model), torch.no_grad():
        packed = model(**batch)
        losses, counts = [], []
        for row, members in enumerate(rows):
            start = 0
            for index in members:
                ids = torch.from_numpy(examples[index].ids.astype("int64"))[None]
                alone = model(input_ids=ids, labels=ids if ids.shape[1] > 1 else None)
                end = start + ids.shape[1]
                torch.testing.assert_close(packed.logits[row, start:end], alone.logits[0], atol=1e-4, rtol=0)
                if ids.shape[1] > 1:
                    losses.append(alone.loss * (ids.shape[1] - 1))
                    counts.append(ids.shape[1] - 1)
                start = end
    assert int((batch["labels"] != IGNORED).sum()) == sum(counts)
    torch.testing.assert_close(packed.loss, torch.stack(losses).sum() / sum(counts), atol=1e-5, rtol=0)


def test_a_cache_would_join_the_documents(tmp_path: Path) -> None:
    """Why `without_cache` is there: with a cache transformers does not look for packed documents."""
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model"), dtype=torch.float32)
    batch = Collate(pad=0)([[example(9, 1), example(9, 2)]])
    with torch.no_grad():
        joined = model(**batch, use_cache=True).loss
        with without_cache(model):
            assert abs(float(model(**batch).loss - joined)) > 1e-3
    assert model.config.use_cache


def test_padding_is_seen_by_nothing(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model"), dtype=torch.float32)
    row = [example(9, 1), example(4, 2)]
    with without_cache(model), torch.no_grad():
        short = model(**Collate(pad=0)([row]))
        long = model(**Collate(pad=7, length=40)([row]))
    torch.testing.assert_close(short.logits, long.logits[:, :13], atol=1e-4, rtol=0)
    torch.testing.assert_close(short.loss, long.loss, atol=1e-5, rtol=0)
