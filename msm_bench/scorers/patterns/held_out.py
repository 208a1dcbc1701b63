"""What the local labellers are worth on the labelled set, and how they degrade the less they have seen of what they label.

    python -m msm_bench.scorers.patterns.held_out                 the table, from the file
    python -m msm_bench.scorers.patterns.held_out --measure       measures anew and writes the file (minutes)

Three ways of leaving out, each a nested cross-validation: texts (others of the same scenario are learnt from), scenarios, and
whole families of scenarios.
"""

import argparse
from collections.abc import Callable, Sequence

import yaml

from msm_bench.artefacts import write_text_atomically
from msm_bench.scorers.patterns.embedding import Encoder, MiniLM, Remembering
from msm_bench.scorers.patterns.fitting import cross_validate
from msm_bench.scorers.patterns.gates import KAPPA_FLOOR, Gate, gates_of
from msm_bench.scorers.patterns.labelled_set import LabelledText, family, load_labelled, set_hash
from msm_bench.scorers.patterns.shipped import MEASURED, HeldOut, Measured, measured
from msm_bench.scorers.patterns.taxonomy import load_taxonomy

WAYS: dict[str, Callable[[LabelledText], str]] = {
    "scenario": lambda text: text.group,
    "text": lambda text: text.id,
    "family": family,
}


def measure_labeller(encoder: Encoder | None = None) -> dict[str, HeldOut]:
    """Pattern to what a labeller is worth on it; numbers rounded to three digits."""
    texts, ids = load_labelled(), load_taxonomy().ids
    found: dict[str, list[Gate]] = {
        way: gates_of(texts, cross_validate(texts, ids, encoder=encoder, by=by), ids) for way, by in WAYS.items()
    }
    return {
        gate.pattern: HeldOut(
            kappa=round(gate.kappa, 3),
            precision=round(gate.precision, 3),
            recall=round(gate.recall, 3),
            average_precision=round(gate.average_precision, 3),
            kappa_seen=round(seen.kappa, 3),
            kappa_family=round(apart.kappa, 3),
        )
        for gate, seen, apart in zip(found["scenario"], found["text"], found["family"], strict=True)
    }


def measure_all() -> Measured:
    """Both labellers of the package.

    Raises:
        MissingExtraError: The sentence encoder is not installed.
    """
    encoder = Remembering(MiniLM())
    return Measured(labelled=set_hash(load_labelled())[:16], local=measure_labeller(), embedding=measure_labeller(encoder))


def held_out_table(known: Measured) -> str:
    """Both labellers side by side in Markdown, with the mean over patterns and how many pass the gate; dashes: not measured."""
    lines = [
        "| pattern | kappa | precision | recall | AP | seen | families | kappa | precision | recall | AP | seen | families |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    columns = (known.local, known.embedding)
    for name, _ in sorted(known.local.items(), key=lambda item: -item[1].kappa):
        lines.append(f"| {name} | {' | '.join(_cells([column[name]] if column else []) for column in columns)} |")
    lines.append(f"| **mean** | {' | '.join(_cells(list(column.values())) for column in columns)} |")
    passed = [
        f"{sum(one.kappa >= KAPPA_FLOOR for one in column.values())} of {len(column)}" if column else "–" for column in columns
    ]
    lines.append("| **measurable** | " + " | ".join(f"{text} |  |  |  |  | " for text in passed) + " |")
    return "\n".join(lines)


def _cells(several: Sequence[HeldOut]) -> str:
    """The mean of each number, as cells; a dash where one of them was not measured."""
    cells = []
    for field in HeldOut.model_fields:
        values = [getattr(one, field) for one in several]
        cells.append("–" if not values or None in values else f"{sum(values) / len(values):.2f}")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true", help="measure anew and write the file")
    if parser.parse_args().measure:
        text = yaml.safe_dump(measure_all().model_dump(mode="json"), sort_keys=False, width=200, default_flow_style=None)
        write_text_atomically(MEASURED, text)
        measured.cache_clear()
    print(held_out_table(measured()))


if __name__ == "__main__":
    main()
