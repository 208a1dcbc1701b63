"""The adapters that one server serves: found, checked to be of its base, and each with a name on it."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msm_bench.checkpoints import ResolvedModel, resolve
from msm_bench.checkpoints.held_out import HELD_OUT_FILE, HeldOutRow, read_held_out
from msm_bench.checkpoints.manifest import CHECKPOINT_FILE
from msm_bench.errors import RequestError


@dataclass(frozen=True)
class Adapter:
    """An adapter that a server serves.

    Attributes:
        name: On the server.
        folder: Its files.
        model: As `checkpoints.resolve` found it.
        rank: Greatest rank of its layers.
        rows: Its held-out rows; None for an adapter made elsewhere.
    """

    name: str
    folder: Path
    model: ResolvedModel
    rank: int
    rows: tuple[HeldOutRow, ...] | None


def find_adapters(base: ResolvedModel, base_name: str, folders: Iterable[Path]) -> dict[Path, Adapter]:
    """The adapters of some folders, each once, by their absolute folder.

    Args:
        base: Full weights.
        base_name: Its name on the server, which no adapter gets.
        folders: Of checkpoints, or of adapters made elsewhere.

    Raises:
        RequestError: an adapter is of another base, or a checkpoint carries no held-out rows.
        ModelNotFoundError, NotAModelError, CorruptWeightsError: as `checkpoints.resolve`.
    """
    found: dict[Path, Adapter] = {}
    for folder in (each.expanduser().absolute() for each in folders):
        if folder in found:
            continue
        model = resolve(str(folder))
        if model.adapter is None or model.identity["base_sha256"] != base.identity["sha256"]:
            raise RequestError(f"'{folder}' is no adapter of '{base.name}'.", "One server serves adapters of its base alone.")
        rows = read_held_out(folder)
        if rows is None and (folder / CHECKPOINT_FILE).is_file():
            raise RequestError(
                f"The checkpoint '{folder}' has no {HELD_OUT_FILE}, so that nothing could tell it from its base on a server.",
                "Train it again, or leave out 'serve' to evaluate in this process.",
            )
        name = plain_name(folder.name)
        if name in {base_name, *(each.name for each in found.values())}:
            name = f"{name}-{model.identity['sha256'][:8]}"
        found[folder] = Adapter(name, folder, model, _rank(folder), rows)
    return found


def name_of_base(base: str) -> str:
    """A base's name on its server: a folder's own name, else as it is named."""
    name = base.removeprefix("msm/")
    folder = Path(name).expanduser()
    return plain_name(folder.absolute().name) if folder.is_dir() else name


def plain_name(text: str) -> str:
    """A name that Inspect takes for an adapter's: without a slash, and without the colon that ends a base's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def _rank(folder: Path) -> int:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return max([int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())])
