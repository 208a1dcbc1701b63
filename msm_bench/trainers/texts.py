"""The texts of a run: whose name they give the model, and whether anything of an evaluation stands in them."""

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from msm_bench.artefacts import MANIFEST_FILE, read_manifest
from msm_bench.corpus.checks import CheckName, check_rows, require_clean
from msm_bench.corpus.checks.names import load_families
from msm_bench.corpus.checks.report import CHECKS
from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers.data import Rows

SUBSTRATE = "substrate"
"""The name of the check that a corpus calls the model what it is."""
_LEAKS: tuple[CheckName, ...] = ("entity", "passage", "probe", "held-out domain")
_IDENTITY: tuple[CheckName, ...] = ("name", "placeholder")


def check_texts(parts: Sequence[tuple[Path, Rows]], base: str, model_type: str, waived: Collection[str]) -> None:
    """Stop a run whose texts would spoil what it is for. What was found is shown on stderr, row by row.

    Args:
        parts: Each corpus with the rows taken from it. The names that it gives model and maker are read from its manifest;
            where it states none, names are not checked.
        base: Name of the model that is trained.
        model_type: Of its configuration, for a base whose name says nothing.
        waived: Names of checks that are let through: those of `corpus.checks.CHECKS`, or "substrate".

    Raises:
        UnknownNameError: a waived check that does not exist.
        RequestError: a corpus is about a model of another family.
        WorkError: a row names another model, keeps a placeholder, or holds something of an evaluation.
    """
    known = (*CHECKS, SUBSTRATE)
    for name in waived:
        if name not in known:
            raise UnknownNameError("check", name, known)
    for path, rows in parts:
        model, provider = _names(path)
        if model and SUBSTRATE not in waived:
            _check_substrate(path, model, base, model_type)
        report = check_rows(
            rows,
            model_name=model or "",
            provider_name=provider or "",
            source=str(path),
            checks=(*_LEAKS, *(_IDENTITY if model and provider else ())),
        )
        if report.problems:
            Console(file=sys.stderr).print(report)
        require_clean(report, waived=[check for check in CHECKS if check in waived])


def _names(path: Path) -> tuple[str | None, str | None]:
    folder = path if path.is_dir() else path.parent
    if not (folder / MANIFEST_FILE).is_file():
        return None, None
    settings = read_manifest(folder).settings
    return settings.get("model_name"), settings.get("provider_name")


def _check_substrate(path: Path, model: str, base: str, model_type: str) -> None:
    told = _families(model)
    # A folder's name may say nothing, and a model type may be borrowed (SmolLM2 is of the type "llama"): name first.
    found = _families(Path(base).name) or _families(model_type)
    if told and found and told.isdisjoint(found):
        raise RequestError(
            f"The texts of '{path}' are about {model}, and the model that is trained is {base} ({', '.join(sorted(found))}).",
            f"Make texts about this model, or waive the check '{SUBSTRATE}' by name if that is meant.",
        )


def _families(name: str) -> set[str]:
    return {family.family for family in load_families() if family.is_named_in(name)}
