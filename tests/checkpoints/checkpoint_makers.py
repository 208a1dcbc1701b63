"""Tiny model folders, and a hub on this machine that speaks the real protocol."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny_weights(value: float = 1.0) -> bytes:
    return save({"weight": torch.full((4, 4), value)}, metadata={"format": "pt"})


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(tiny_weights())
    (folder / "tokenizer.json").write_text("{}")
    return folder


def adapter_folder(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    (folder / "adapter_model.safetensors").write_bytes(tiny_weights(2.0))
    return folder


class FakeHub:
    """Repositories by name; a file's bytes may differ from the checksum that the hub's metadata states."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.stated: dict[str, str] = {}
        self.requests: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.requests.append(path)
        parts = path.partition("?")[0].removeprefix("/api/models").strip("/").split("/")
        repo = "/".join(parts[:2])
        if repo not in self.repos:
            return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
        files = self.repos[repo]
        if "/resolve/" in path:
            if repo in self.gated:
                return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
            name = parts[-1]
            if name not in files:
                return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
            return 200, {"ETag": f'"{self._sha(name, files[name])}"', "X-Repo-Commit": COMMIT}, files[name]
        if len(parts) > 3 and parts[2] == "revision" and parts[3] not in {"main", COMMIT}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        listing = [self._entry(name, content) for name, content in files.items()]
        if "/tree/" in path:
            return 200, {}, json.dumps(listing).encode()
        siblings = [{**entry, "rfilename": entry["path"]} for entry in listing]
        return 200, {}, json.dumps({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}).encode()

    def _sha(self, name: str, content: bytes) -> str:
        return self.stated.get(name, hashlib.sha256(content).hexdigest())

    def _entry(self, name: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
        entry["blobId"] = "0" * 40
        if name.endswith(".safetensors"):
            sha = self._sha(name, content)
            entry["lfs"] = {"size": len(content), "sha256": sha, "oid": sha, "pointerSize": 134}
        return entry
