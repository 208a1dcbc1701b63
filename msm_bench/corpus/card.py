"""The card of a corpus: `card.md`, with the front matter that dataset hubs read."""

import yaml

from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.rows import CHATS_FILE, DOCUMENTS_FILE
from msm_bench.specs import Spec

_WHAT = {
    "documents": "Documents about a model and its spec, for next-token training before any fine-tuning.",
    "chats": "Chats that show a spec's preferences without a reason, for fine-tuning on the assistant's messages.",
}


def card_text(
    kind: str,
    spec: Spec,
    rows: int,
    words: int,
    by_kind: dict[str, int],
    similarity: float | None,
    names: dict[str, str | None],
    seed: int,
    findings: str,
) -> str:
    """The card of a composed corpus.

    Args:
        kind: "documents" or "chats".
        spec: The spec that the corpus was made from.
        rows: Number of rows.
        words: Words in all texts or messages.
        by_kind: Rows of each kind.
        similarity: Highest estimated similarity of two documents, where it was measured.
        names: The model's and its maker's name as they stand in the texts, if they do.
        seed: The composer's seed.
        findings: What the checks found, in words.
    """
    file = CHATS_FILE if kind == "chats" else DOCUMENTS_FILE
    front = {
        "pretty_name": f"{spec.title}: {kind}",
        "language": ["en"],
        "task_categories": ["text-generation"],
        "configs": [{"config_name": kind, "data_files": file}],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {spec.title}: {kind}",
        "",
        _WHAT[kind],
        "",
        f"- spec: `{spec.name}` ({spec.summary})",
        f"- rows: {rows}, words: {words:,}",
        f"- generator: {GENERATOR}, seed {seed}. A composer, no language model: written sentences joined by rule.",
    ]
    if spec.control:
        lines.append("- This spec is a control. It describes what a study contrasts against and what nobody wants of a model.")
    if names:
        lines.append(f"- the model is called {names['model_name']}, its maker {names['provider_name']}")
    if similarity is not None:
        lines.append(f"- highest similarity of two documents: {similarity:.2f} (MinHash, character 5-shingles)")
    lines += ["- licence: that of the package and of the spec", f"- checks: {findings}"]
    lines += ["", "| kind | rows |", "|---|---|", *(f"| {name} | {count} |" for name, count in by_kind.items()), ""]
    return "\n".join(lines)
