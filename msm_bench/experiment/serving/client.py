"""What is asked of a vLLM server beside Inspect's requests: what it serves, losses of given tokens, how it would sample."""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from msm_bench.errors import WorkError

_SECONDS = 600.0
"""For one request; a long row on a CPU takes its time."""

M = TypeVar("M", bound=BaseModel)


class Rendered(BaseModel):
    """A request as the server understood it."""

    model_config = ConfigDict(extra="ignore")

    token_ids: tuple[int, ...]
    """The prompt, after the chat template."""
    sampling_params: dict[str, Any]
    """Those that the request would be sampled with, the server's defaults among them; vLLM leaves out its neutral values."""


class _Logprob(BaseModel):
    logprob: float


class _Choice(BaseModel):
    prompt_logprobs: list[dict[str, _Logprob] | None]


class _Completion(BaseModel):
    choices: list[_Choice]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class Client:
    """Requests to one server.

    Args:
        root: Its address, without `/v1`.
    """

    def __init__(self, root: str) -> None:
        key = os.environ.get("VLLM_API_KEY")  # which server and Inspect read as well
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Proxies of the environment are for other machines.
        self._http = httpx.Client(base_url=root, headers=headers, timeout=_SECONDS, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def healthy(self) -> bool:
        """Whether the server answers, and its engine lives."""
        try:
            return self._http.get("/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def models(self) -> list[str]:
        """The names that it serves: the base's and every adapter's."""
        return [model.id for model in _parsed(_Models, self._ask("GET", "/v1/models")).data]

    def version(self) -> str | None:
        """vLLM's version, None where the server does not say."""
        try:
            found = self._http.get("/version", timeout=30).json()
        except (httpx.HTTPError, ValueError):
            return None
        return str(found["version"]) if isinstance(found, dict) and "version" in found else None

    def losses(self, model: str, ids: Sequence[int], scored: Sequence[int]) -> list[float]:
        """Negative log-probability in nats of some tokens of a text under a model.

        Args:
            model: A name that the server serves.
            ids: The text's tokens.
            scored: Places in `ids`, none the first.

        Raises:
            WorkError: the server refuses, or its answer does not hold them.
        """
        # vLLM returns the prompt's log-probabilities with a generation of at least one token.
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        found = _parsed(_Completion, self._ask("POST", "/v1/completions", body)).choices[0].prompt_logprobs
        if len(found) != len(ids):
            raise _strange(f"{len(found)} log-probabilities for {len(ids)} tokens")
        losses = []
        for place in scored:
            entry = (found[place] or {}).get(str(ids[place]))
            if entry is None:
                raise _strange(f"no log-probability of token {place}")
            losses.append(-entry.logprob)
        return losses

    def render(self, request: dict[str, Any]) -> Rendered | None:
        """How the server would answer a chat request, without answering it; None where it does not tell (other versions).

        Raises:
            WorkError: the server refuses the request.
        """
        answer = self._send("POST", "/v1/chat/completions/render", request)
        if answer.status_code in (403, 404, 405, 501):
            return None
        return _parsed(Rendered, _checked(answer))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        return _checked(self._send(method, path, body))

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> httpx.Response:
        try:
            return self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise WorkError(
                f"The server does not answer {path}: {type(error).__name__}: {error}.", "Read its log, and run again."
            ) from error


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code != 200:
        path = answer.request.url.path
        raise WorkError(
            f"The server refused {path} ({answer.status_code}): {' '.join(answer.text.split())[:400]}.",
            "Read its log, and mend serve.args.",
        )
    return answer


def _parsed(kind: type[M], answer: httpx.Response) -> M:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _strange(f"{'.'.join(str(part) for part in first['loc'])} {first['msg']}") from error


def _strange(what: str) -> WorkError:
    return WorkError(f"The server's answer is not vLLM's: {what}.", "Use a version of vLLM that docs/serving.md names.")
