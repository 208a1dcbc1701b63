"""The tables as files: every estimate, every contrast and every published number, flat, with what links them to their logs."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from msm_bench.analysis.contrasts import ContrastResult
from msm_bench.report.evidence import Evidence


def write_tables(evidence: Evidence, folder: Path) -> None:
    """Writes `results`, `contrasts` and (where numbers were asked for) `published`, each as .csv and .parquet.

    Fields are those of `msm-bench compare --json`. A list or mapping stands as JSON; an absent number is an empty field.
    """
    logs: dict[tuple[str, str], list[str]] = {}
    for arm in evidence.arms:
        for log in arm.logs:
            logs.setdefault((arm.name, log.header.task), []).append(log.sha256)
    comparison = evidence.comparison
    results = [{**_flat(one), "logs": json.dumps(logs.get((one.arm, one.task), []))} for one in comparison.estimates]
    _write(results, folder / "results")
    _write([_flat(one) for one in comparison.contrasts], folder / "contrasts", tuple(ContrastResult.model_fields))
    if comparison.published:
        _write([_flat(one) for one in comparison.published], folder / "published")


def _flat(entry: BaseModel) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entry.model_dump(mode="json").items():
        if name == "new_conditions":
            flat |= {f"new_{part}": (value or {}).get(part) for part in ("low", "high", "interval")}
        else:
            flat[name] = json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
    return flat


def _write(rows: list[dict[str, Any]], path: Path, columns: tuple[str, ...] | None = None) -> None:
    frame = pd.DataFrame(rows, columns=columns if not rows else None)
    frame.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n", encoding="utf-8")
    frame.to_parquet(path.with_suffix(".parquet"), index=False)
