"""Reads the data sets of a mix as a stream, from the hub or from a local copy."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msm_bench.artefacts import sha256_of_file
from msm_bench.corpus.mix.sources import MixSource
from msm_bench.errors import DownloadError, RequestError

_SHUFFLE_BUFFER = 10_000
_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


class SourceReader:
    """A data set's records in a seeded order that is the same at every reading.

    Args:
        source: Which data set.
        local: Repository, or "repository/config", to a file or folder (JSON Lines, JSON or Parquet) to read instead.
        seed: Of the order.

    Raises:
        RequestError: the local copy is missing or holds no such file.
        DownloadError: the hub does not give the data set.
    """

    def __init__(self, source: MixSource, local: Mapping[str, Path], seed: int) -> None:
        self._source, self._seed = source, seed
        place = local.get(f"{source.repository}/{source.config}") or local.get(source.repository)
        self._files = None if place is None else _data_files(place, source.split)
        self.revision = self._find_revision()
        """The commit that is read; for a local copy "local-" and the start of its files' hash."""

    def records(self, skip: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number in the data set, and record, in seeded order, without the first `skip`.

        Raises:
            DownloadError: the stream breaks off.
        """
        from datasets import load_dataset

        try:
            if self._files:
                stream = load_dataset(
                    _FORMATS[self._files[0].suffix], data_files=[str(f) for f in self._files], split="train", streaming=True
                )
            else:
                stream = load_dataset(
                    self._source.repository,
                    self._source.config,
                    split=self._source.split,
                    revision=self.revision,
                    streaming=True,
                )
            numbered = stream.map(lambda record, number: {"_record": record, "_number": number}, with_indices=True)
            for place, entry in enumerate(numbered.shuffle(seed=self._seed, buffer_size=_SHUFFLE_BUFFER)):
                if place >= skip:
                    yield int(entry["_number"]), dict(entry["_record"])
        except Exception as error:  # datasets, huggingface_hub, httpx and pyarrow each raise their own
            raise self._failed(error) from error

    def _find_revision(self) -> str:
        if self._files:
            hashes = "".join(sha256_of_file(file) for file in self._files)
            return f"local-{hashlib.sha256(hashes.encode()).hexdigest()[:12]}"
        if self._source.revision:
            return self._source.revision
        from huggingface_hub import HfApi

        try:
            found = HfApi().dataset_info(self._source.repository).sha
        except Exception as error:
            raise self._failed(error) from error
        return found or "main"

    def _failed(self, error: Exception) -> DownloadError:
        reason = " ".join(str(error).split())[:200]
        return DownloadError(
            f"The data set '{self._source.repository}' could not be read ({type(error).__name__}: {reason}).",
            "Check the network, ask for access on the hub if it is gated, or name a local copy of it; then run the same again.",
        )


def _data_files(place: Path, split: str) -> list[Path]:
    if place.is_file():
        found = [place]
    else:
        found = sorted(path for path in place.glob("**/*") if path.suffix in _FORMATS) if place.is_dir() else []
        # A copy of a whole repository has its splits in the file names ("train-00000-of-00001.parquet").
        found = [path for path in found if path.name.startswith(split)] or found
    found = [path for path in found if path.suffix == found[0].suffix]
    if not found or found[0].suffix not in _FORMATS:
        raise RequestError(f"There is no data set at '{place}'.", f"Name a file or folder with one of: {', '.join(_FORMATS)}.")
    return found
