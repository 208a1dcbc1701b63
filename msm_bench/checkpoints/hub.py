"""Models of the Hugging Face hub: found, downloaded as safetensors only, and pinned to a commit."""

import logging
import os
from pathlib import Path

from msm_bench.checkpoints.fetch import offline, within
from msm_bench.checkpoints.store import disk_errno
from msm_bench.errors import CacheError, DownloadError, ModelNotFoundError, NotAModelError

log = logging.getLogger(__name__)
_TEXT = ("*.json", "*.jinja", "*.txt", "*.model")
_ANSWER_SECONDS = 15.0


def hub_snapshot(repo: str, revision: str | None) -> tuple[Path, dict[str, str]]:
    """The folder of a hub model's snapshot in the hub's own cache, downloaded when it is not there.

    Args:
        repo: `owner/name`.
        revision: Branch, tag or commit; None for the main branch.

    Returns:
        The folder, and `source` (`hub@<commit>`) and `repository` for the identity.

    Raises:
        ModelNotFoundError: No such repository or revision, or no access to it.
        NotAModelError: The repository holds pickled weights only.
        DownloadError: The hub cannot be reached, or is not to be reached, and the model is not in its cache.
        CacheError: The hub's cache cannot be written to or its disk is full.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if offline():
        return _from_cache(repo, revision, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE once to download it.")
    try:
        info = within(_ANSWER_SECONDS, lambda: HfApi().model_info(repo, revision=revision, timeout=_ANSWER_SECONDS))
    except GatedRepoError as error:
        raise _gated(repo) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"'{repo}' has no revision '{revision}' on the hub.", "Look up its branches, tags and commits on its page."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"'{repo}' is neither a folder here nor a model on the hub.",
            "Check the spelling; for a private model log in with 'hf auth login' or set HF_TOKEN.",
        ) from error
    except HfHubHTTPError as error:
        raise DownloadError(f"The hub refused the request for '{repo}': {error}.", "Try again later.") from error
    except Exception as error:  # connection errors of the hub's HTTP library, and our own TimeoutError
        log.debug("no answer from the hub", exc_info=True)
        return _from_cache(
            repo, revision, f"the hub cannot be reached ({type(error).__name__})", "Check the name and the network."
        )
    files = [file.rfilename for file in info.siblings or []]
    return _download(repo, revision, files)


def _download(repo: str, revision: str | None, files: list[str]) -> tuple[Path, dict[str, str]]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    top = [file for file in files if "/" not in file]
    # Repositories often carry the same weights twice (consolidated.safetensors, original/); transformers loads model*.
    weights = [file for file in top if file.endswith(".safetensors")]
    weights = [file for file in weights if file.startswith(("model", "adapter_model"))] or weights
    if not weights:
        held = "only pickled weights (.bin)" if any(file.endswith(".bin") for file in top) else "no safetensors weights"
        raise NotAModelError(
            f"'{repo}' holds {held}.",
            "Name a revision or a copy with safetensors, or convert it once with save_pretrained and name the folder.",
        )
    try:
        # By the revision's name, not its commit: only then does the client note which commit the name means, which
        # it needs to find the snapshot again without a network.
        patterns = [*_TEXT, *weights]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except GatedRepoError as error:
        raise _gated(repo) from error
    except Exception as error:
        number = disk_errno(error)
        if number is not None:
            raise CacheError(
                f"The download of '{repo}' could not be written: {os.strerror(number)}.",
                "Free space, or set HF_HOME to a folder that you can write to.",
            ) from error
        raise DownloadError(
            f"The download of '{repo}' failed ({type(error).__name__}).", "Run again; what came so far is kept."
        ) from error
    return folder, {"source": f"hub@{folder.name}", "repository": repo}


def _from_cache(repo: str, revision: str | None, why: str, mend: str) -> tuple[Path, dict[str, str]]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            # Without the patterns a snapshot counts as incomplete when files that were never wanted are absent.
            snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=list(_TEXT), ignore_patterns=["*/*"]
            )
        )
    except LocalEntryNotFoundError as error:
        raise DownloadError(
            f"'{repo}' is no folder here and not in the hub's cache on this machine, and {why}.", mend
        ) from error
    log.warning("Using the cached copy of '%s', because %s.", repo, why)
    return folder, {"source": f"hub@{folder.name}", "repository": repo}


def _gated(repo: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"'{repo}' is gated on the hub.",
        f"Ask for access at https://huggingface.co/{repo}, then log in with 'hf auth login' or set HF_TOKEN.",
    )
