"""The card of a checkpoint: what a reader must know, in Markdown. A pure function of the record."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from msm_bench.checkpoints.manifest import Checkpoint

if TYPE_CHECKING:
    from msm_bench.trainers.plan import Plan

_METRICS = {
    "held_out_base": "held-out loss without any adapter (nats a token)",
    "held_out_start": "held-out loss before training",
    "held_out": "held-out loss after training",
    "loss_first": "training loss, first tenth",
    "loss_last": "training loss, last tenth",
    "parent_cosine": "cosine to the parent's adapter, mean over tensors",
    "reward_first": "mean reward, first tenth of the second stage",
    "reward_last": "mean reward, last tenth of the second stage",
}


def card(record: Checkpoint) -> str:
    """The Markdown text."""
    recipe, data = record.recipe, record.data
    settings, sources = recipe["settings"], recipe["sources"]
    parent = f"`{(record.parent.id or record.parent.sha256)[:12]}`, continued" if record.parent else "none (fresh adapter)"
    lines = [
        f"# {record.trainer} checkpoint `{record.id[:12]}`",
        "",
        f"- base: {record.base.name} ({record.base.source}, weights `{record.base.sha256[:12]}`)",
        f"- parent: {parent}",
        f"- recipe: {recipe['name']} v{recipe['version']} (`{recipe['sha256'][:12]}`), seed {record.seed}",
        f"- data: {data.rows:,} rows, {data.tokens:,} tokens an epoch, {data.loss_tokens:,} of them with loss; "
        f"{data.held_out} rows held out",
        f"- training: {record.updates:,} updates, {settings['epochs']} epoch(s)",
    ]
    if data.split:
        lines.append(f"- {data.split} rows became several sequences ({data.examples:,} in all)")
    lines += [f"- **{note}**" for note in record.notes]
    lines += ["", "| corpus | rows | used | specs | made by |", "|---|---|---|---|---|"]
    for corpus in data.corpora:
        specs, makers = ", ".join(corpus.specs) or "none", ", ".join(corpus.generators)
        lines.append(
            f"| {corpus.name} `{(corpus.id or corpus.sha256)[:12]}` | {corpus.rows:,} | {corpus.used:,} | {specs} | {makers} |"
        )
    lines += ["", "| measured | value |", "|---|---|"]
    lines += [f"| {_METRICS.get(key, key)} | {value:.4f} |" for key, value in record.metrics.items()]
    lines += [f"| {key} | {value:,.1f} |" for key, value in record.cost.items()]
    lines += ["", "| setting | value | source | reason |", "|---|---|---|---|"]
    # What nobody states comes first: it is what makes two recipes incomparable.
    for key in sorted(settings, key=lambda key: (sources[key]["source"] in ("paper B.4", "adapter config"), key)):
        source = sources[key]
        lines.append(f"| {key} | {_text(settings[key])} | {source['source']} | {source['reason']} |")
    lines += ["", "| package | version |", "|---|---|"]
    lines += [f"| {package} | {version} |" for package, version in record.versions.items()]
    return "\n".join(lines) + "\n"


def render(made: "Checkpoint | Plan") -> RenderableType:
    """What `train` gave, for a terminal: a checkpoint's card in short, or the plan."""
    if not isinstance(made, Checkpoint):
        from msm_bench.trainers.plan import render as render_plan

        return render_plan(made)
    table = Table(show_header=False, title=f"{made.trainer} checkpoint {made.id[:12]}")
    table.add_row("base", f"{made.base.name} ({made.base.source})")
    table.add_row("parent", (made.parent.id or made.parent.sha256)[:12] if made.parent else "none: a fresh adapter")
    table.add_row("recipe", f"{made.recipe['name']} v{made.recipe['version']} ({made.recipe['sha256'][:12]})")
    table.add_row("data", f"{made.data.rows:,} rows, {made.data.loss_tokens:,} tokens with loss an epoch")
    table.add_row("updates", f"{made.updates:,}")
    for key, value in made.metrics.items():
        table.add_row(_METRICS.get(key, key), f"{value:.4f}")
    for note in made.notes:
        table.add_row("note", note)
    return table


def _text(value: object) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, list) else "none" if value is None else str(value)
