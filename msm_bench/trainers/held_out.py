"""The held-out rows that a checkpoint carries, so that a server can be asked whether it serves the adapter."""

from collections.abc import Sequence

import numpy
import torch

from msm_bench.checkpoints.held_out import HeldOutRow
from msm_bench.trainers.contract import IGNORED, Example
from msm_bench.trainers.fitting import without_cache
from msm_bench.trainers.packing import Collate
from msm_bench.trainers.stage import Stage

ROWS = 8
"""Few, since a server is asked for all of them before every evaluation."""
LENGTH = 1024
"""A longer row is cut here. The model is causal, so that the losses before the cut are those of the whole row."""


def measure(stage: Stage) -> list[HeldOutRow]:
    """Losses of some held-out rows after the last stage, each row alone. Every process calls it: under FSDP a forward pass is
    made by all together, and here all make the same."""
    examples = [_cut(example) for example in _spread(stage.held_out)]
    # One length for all: some attention implementations compile anew for every length. Any token will do to fill it.
    collate = Collate(pad=0, length=max(len(example.ids) for example in examples))
    with without_cache(stage.model):
        losses = _losses(stage, collate, examples)
        peft = stage.trainer.accelerator.unwrap_model(stage.trainer.model)
        with peft.disable_adapter():
            bases = _losses(stage, collate, examples)
    return [
        HeldOutRow(
            row=example.row,
            ids=tuple(int(token) for token in example.ids),
            scored=tuple(int(place) for place in numpy.flatnonzero(example.labels != IGNORED)),
            loss=round(loss, 6),
            loss_base=round(base, 6),
        )
        for example, loss, base in zip(examples, losses, bases, strict=True)
    ]


def _spread(examples: Sequence[Example]) -> list[Example]:
    """Examples from all over the held-out ones, which lie in the order of their corpora."""
    count = min(ROWS, len(examples))
    return [examples[place * len(examples) // count] for place in range(count)]


def _cut(example: Example) -> Example:
    first = int(numpy.flatnonzero(example.labels != IGNORED)[0])
    end = max(LENGTH, first + LENGTH // 8)
    return Example(ids=example.ids[:end], labels=example.labels[:end], row=example.row)


def _losses(stage: Stage, collate: Collate, examples: Sequence[Example]) -> list[float]:
    model = stage.trainer.model_wrapped
    training = model.training
    model.eval()
    losses = []
    with torch.no_grad():
        for example in examples:
            batch = {name: tensor.to(stage.trainer.args.device) for name, tensor in collate([[example]]).items()}
            # Divided by 1: the sum over the tokens.
            total = model(**batch, num_items_in_batch=1).loss
            losses.append(float(total) / int((example.labels != IGNORED).sum()))
    model.train(training)
    return losses
