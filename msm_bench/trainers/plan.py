"""What a run would take, before any weights are loaded: counts, the learning rate's course, memory, and a measured time."""

import copy
import time
from typing import Any

from pydantic import BaseModel
from rich.console import Group
from rich.table import Table
from rich.text import Text

from msm_bench.checkpoints.manifest import Data
from msm_bench.errors import NotAModelError
from msm_bench.trainers.lineage import Lineage
from msm_bench.trainers.packing import Sizes
from msm_bench.trainers.recipe import Recipe, ResolvedRecipe

_PROBE_TOKENS = {"cpu": 256, "cuda": 4096}
_PROBE_REPEATS = 3
_LOGITS_TOKENS = 1024
"""Tokens whose logits exist at once where the loss is taken in pieces, at most."""


class Memory(BaseModel, frozen=True):
    """Bytes on one device when nothing is sharded."""

    weights: int
    """The frozen weights."""
    adapter: int
    """The adapter in float32 with its gradient and the optimizer's two moments: 16 bytes a parameter."""
    activations: int
    """Estimated: what a forward pass keeps for the backward pass, and the logits with their gradient."""


class Plan(BaseModel, frozen=True):
    """The plan of a run."""

    trainer_recipe: str
    base: str
    parent: str | None
    data: Data
    epochs: int
    rows: int
    """Training rows of all epochs, each of up to `max_tokens` tokens."""
    tokens: int
    """Of all epochs, padding left out."""
    loss_tokens: int
    padding: float
    """Share of the forward passes that is padding."""
    updates: int
    tokens_per_update: float
    learning_rate: dict[int, float]
    """Update (from 1) to the rate it is made with: first, end of the warm-up, quarters, last."""
    parameters: int
    trainable: int
    memory: Memory
    seconds: float | None
    """On one of this machine's devices, from `probe`; None when it was not measured."""
    probe: str | None
    """How `seconds` was measured."""
    chosen: dict[str, str]
    """The settings that no source fixes, with the reason for each."""
    notes: tuple[str, ...]


def make_plan(
    recipe: ResolvedRecipe[Recipe], lineage: Lineage, data: Data, sizes: Sizes, notes: tuple[str, ...], probe: bool
) -> Plan:
    """The plan of a checked request.

    Raises:
        NotAModelError: the base's configuration is not that of a causal language model.
    """
    settings = recipe.settings
    config = model_config(lineage)
    parameters, trainable = _parameters(config, settings)
    length = sizes.tokens / max(sizes.rows, 1) / max(1 - sizes.padding, 0.01)
    memory, twice = _memory(config, settings, parameters, trainable, length)
    seconds, how = _probe(config, settings, sizes, twice) if probe else (None, None)
    return Plan(
        trainer_recipe=f"{recipe.name} v{recipe.version} ({recipe.sha256[:12]})",
        base=f"{lineage.base.name} ({lineage.base.source})",
        parent=(lineage.parent.id or lineage.parent.sha256)[:12] if lineage.parent else None,
        data=data,
        epochs=settings.epochs,
        rows=sizes.rows,
        tokens=sizes.tokens,
        loss_tokens=sizes.loss_tokens,
        padding=sizes.padding,
        updates=sizes.updates,
        tokens_per_update=sizes.tokens / sizes.updates,
        learning_rate=_course(settings, sizes.updates),
        parameters=parameters,
        trainable=trainable,
        memory=memory,
        seconds=seconds,
        probe=how,
        chosen=recipe.chosen(),
        notes=notes,
    )


def render(plan: Plan) -> Group:
    """The plan for a terminal."""
    table = Table(show_header=False, title="Plan (nothing was loaded or written)")
    gib = 1 / 2**30
    memory = plan.memory
    total = memory.weights + memory.adapter + memory.activations
    time_text = "not measured" if plan.seconds is None else f"{plan.seconds / 60:.1f} minutes ({plan.probe})"
    course = ", ".join(f"{rate:.2e} at {update}" for update, rate in plan.learning_rate.items())
    for name, value in (
        ("recipe", plan.trainer_recipe),
        ("base", plan.base),
        ("parent", plan.parent or "none: a fresh adapter"),
        ("corpus rows", f"{plan.data.rows:,} trained, {plan.data.held_out} held out, {plan.data.split} split"),
        ("training rows", f"{plan.rows:,} in {plan.epochs} epoch(s)"),
        ("tokens", f"{plan.tokens:,}, of them with loss {plan.loss_tokens:,}; padding {plan.padding:.1%}"),
        ("updates", f"{plan.updates:,} of {plan.tokens_per_update:,.0f} tokens"),
        ("learning rate", course),
        ("parameters", f"{plan.parameters / 1e6:,.1f} M, trained {plan.trainable / 1e6:,.2f} M"),
        (
            "memory",
            f"{total * gib:.1f} GiB a device: weights {memory.weights * gib:.1f}, adapter with optimizer "
            f"{memory.adapter * gib:.1f}, activations about {memory.activations * gib:.1f}",
        ),
        ("time", time_text),
    ):
        table.add_row(name, value)
    chosen = [Text(f"  {key} = {why}") for key, why in plan.chosen.items()]
    return Group(table, Text("Chosen, as no source fixes it:"), *chosen, *(Text(f"Note: {note}") for note in plan.notes))


def model_config(lineage: Lineage) -> Any:
    """The base's configuration. Raises `NotAModelError` where transformers does not know it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(lineage.model.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise NotAModelError(
            f"transformers cannot read the configuration in '{lineage.model.path}' ({type(error).__name__}).",
            "Give a causal language model that transformers knows without code of its own.",
        ) from error


def _parameters(config: Any, recipe: Recipe) -> tuple[int, int]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        make: Any = AutoModelForCausalLM.from_config
        model = make(config)
    layers = [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in recipe.target_modules
    ]
    trainable = sum(recipe.rank * (layer.in_features + layer.out_features) for layer in layers)
    return sum(parameter.numel() for parameter in model.parameters()), trainable


def _memory(config: Any, recipe: Recipe, parameters: int, trainable: int, length: float) -> tuple[Memory, int]:
    """The memory, and how many layers compute their activations twice."""
    from msm_bench.trainers.fitting import dtype
    from msm_bench.trainers.memory import fixed_count, spared

    text = config.get_text_config()
    size = dtype(recipe).itemsize
    tokens = int(recipe.micro_batch_rows * min(length, recipe.max_tokens))
    layers = text.num_hidden_layers
    # 17 values of the hidden size a token and layer: Korthikanti et al. 2022, table 2, attention scores not kept.
    each = tokens * 17 * text.hidden_size * size
    # The logits that exist at once, with their gradient.
    fixed = min(tokens, _LOGITS_TOKENS if recipe.loss_in_pieces else tokens) * text.vocab_size * (size + 4 + 4)
    fixed += tokens * text.hidden_size * layers * size
    memory = Memory(weights=parameters * size, adapter=trainable * 16, activations=fixed + each)
    twice = fixed_count(recipe, layers)
    if twice is None:
        import torch

        free = torch.cuda.mem_get_info()[1]
        twice = layers - spared(free, memory.weights + memory.adapter + memory.activations, each, layers)
    return memory.model_copy(update={"activations": fixed + each * max(layers - twice, 1)}), twice


def _course(recipe: Recipe, updates: int) -> dict[int, float]:
    import torch
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    warmup = round(updates * recipe.warmup)
    schedule = get_scheduler(recipe.schedule, optimizer, num_warmup_steps=warmup, num_training_steps=updates)
    rates = []
    for _ in range(updates):
        rates.append(float(schedule.get_last_lr()[0]))
        optimizer.step()
        schedule.step()
    wanted = sorted({1, min(warmup + 1, updates), *(max(updates * part // 4, 1) for part in (1, 2, 3)), updates})
    return {update: rates[update - 1] for update in wanted}


def _probe(config: Any, recipe: Recipe, sizes: Sizes, twice: int) -> tuple[float | None, str]:
    """Seconds of a whole run on one device: one and two layers with random weights are timed, the rest is their difference."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = min(_PROBE_TOKENS[device], recipe.max_tokens)
    one, two = (_time(config, recipe, layers, tokens, device) for layers in (1, 2))
    layers = config.get_text_config().num_hidden_layers
    step = one + max(two - one, 0.0) * (layers - 1)
    step *= 1 + twice / layers / 2  # forward and backward through frozen weights cost the same; twice is one more forward
    seconds = step / tokens * sizes.tokens / (1 - sizes.padding)
    how = f"one device of this machine; 1 and 2 layers timed on {tokens} tokens of random text"
    return round(seconds, 1), how


def _time(config: Any, recipe: Recipe, layers: int, tokens: int, device: str) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    from msm_bench.trainers.fitting import dtype
    from msm_bench.trainers.loading import attention, fresh_adapter
    from msm_bench.trainers.speed import fast_paths

    small = copy.deepcopy(config)
    text = small.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    text.num_hidden_layers = layers
    with torch.device(device), torch.random.fork_rng():
        make: Any = AutoModelForCausalLM.from_config
        model = make(small, dtype=dtype(recipe), attn_implementation=attention(recipe))
        ids = torch.randint(0, text.vocab_size, (1, tokens))
        model = fresh_adapter(model, recipe, "the model")
        best = float("inf")
        with fast_paths(model, recipe), torch.autocast(device, torch.bfloat16, enabled=dtype(recipe) is torch.bfloat16):
            for _ in range(_PROBE_REPEATS):
                begun = time.perf_counter()
                model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
                if device == "cuda":
                    torch.cuda.synchronize()
                best = min(best, time.perf_counter() - begun)
    return best
