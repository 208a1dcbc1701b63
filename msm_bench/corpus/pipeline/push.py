"""Puts a finished corpus on the Hugging Face hub, with its card as the page's text."""

from pathlib import Path
from typing import Any

from msm_bench.artefacts import verify
from msm_bench.corpus.pipeline.secrets import without_keys
from msm_bench.errors import WorkError


def push(folder: Path, repository: str, *, private: bool = True) -> str:
    """Uploads a corpus folder as a data set; the same folder uploaded again changes nothing.

    Args:
        folder: A finished corpus, whole and unchanged.
        repository: "owner/name" of the data set; made where it is not there.
        private: Whether a repository that is made now is private.

    Returns:
        The address of the data set.

    Raises:
        RequestError: the folder is no artefact.
        WorkError: a file is not the one of its manifest, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    manifest = verify(folder)
    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        message = f"{manifest.kind} {manifest.id[:12]}"
        where: dict[str, Any] = {"repo_id": repository, "repo_type": "dataset", "commit_message": message}
        # The hub reads a data set's card from README.md; here it is called what it is.
        api.upload_file(path_or_fileobj=folder / "card.md", path_in_repo="README.md", **where)
        api.upload_folder(folder_path=folder, ignore_patterns=["card.md"], **where)
    except (HfHubHTTPError, OSError) as error:
        problem = f"The hub refused '{repository}': {without_keys(' '.join(str(error).split()))[:300]}"
        raise WorkError(problem.removesuffix(".") + ".", "Log in with `hf auth login`.") from error
    return str(address)
