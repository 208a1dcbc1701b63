"""Batches survive a kill: what was handed to the provider is written down, and its answers are fetched by the next run.

Inspect gathers the calls into batches and waits for them. A batch takes up to a day and is paid for when it was taken, so for
Anthropic each batch's id and requests are put on the disk (`batches.jsonl`) as soon as the provider has named it. The next run
waits for the batches whose answers it does not have, takes their answers, and sends only what no batch holds.
"""

import json
import os
from logging import getLogger
from pathlib import Path
from typing import Any

import anyio
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, Model, ModelOutput, ModelUsage, StopReason

from msm_bench.artefacts import sha256_of_value
from msm_bench.corpus.pipeline.store import read_json_lines

logger = getLogger(__name__)
BATCHES_FILE = "batches.jsonl"
POLL_SECONDS = 15.0
_STOPPED: dict[str, StopReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "model_length",
    "refusal": "content_filter",
}


class BatchJournal:
    """The batches of a work folder.

    Args:
        folder: The work folder.
        models: Models that send batches; those of other providers than Anthropic are left alone.
        poll_seconds: Pause between two looks at a batch that has not ended.
    """

    def __init__(self, folder: Path, models: list[Model], poll_seconds: float = POLL_SECONDS) -> None:
        self._path = folder / BATCHES_FILE
        self._clients: list[Any] = [vars(model.api)["client"] for model in models if str(model).startswith("anthropic/")]
        self._poll_seconds = poll_seconds
        for client in self._clients:
            client._client.event_hooks["response"].append(self._note)

    async def collect(self) -> dict[str, ModelOutput]:
        """Answers of batches that earlier runs have sent, by the key of their request (see `key_of`).

        Waits for batches that have not ended. A batch that the provider no longer knows is passed over: its requests are
        sent again.
        """
        from anthropic import NotFoundError

        found: dict[str, ModelOutput] = {}
        for line in read_json_lines(self._path) if self._clients else []:
            batch, keys = str(line["batch"]), dict(line["requests"])  # type: ignore[call-overload]
            client = self._clients[0]
            try:
                while (await client.messages.batches.retrieve(batch)).processing_status != "ended":
                    logger.info(f"Waiting for the batch {batch} of an earlier run.")
                    await anyio.sleep(self._poll_seconds)
                async for entry in await client.messages.batches.results(batch):
                    if entry.result.type == "succeeded" and entry.custom_id in keys:
                        found[keys[entry.custom_id]] = _output(entry.result.message)
            except NotFoundError:
                logger.warning(f"The provider no longer knows the batch {batch}; what it held is asked for again.")
        return found

    async def _note(self, response: Any) -> None:
        """Writes a batch down that the provider has just named (a hook of the HTTP client)."""
        request = response.request
        if request.method != "POST" or not request.url.path.endswith("/messages/batches") or response.status_code != 200:
            return
        await response.aread()
        sent = json.loads(request.content)["requests"]
        keys = {entry["custom_id"]: key_of_params(entry["params"]) for entry in sent}
        line = json.dumps({"batch": response.json()["id"], "requests": keys}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def key_of(model: str, texts: list[str], max_tokens: int) -> str:
    """The key by which a request is found again in a batch: the model, what is said, and how much may be answered."""
    return sha256_of_value([model.rpartition("/")[2], texts, max_tokens])


def key_of_params(params: dict[str, Any]) -> str:
    """As `key_of`, of a request as it was sent to Anthropic."""
    texts = [block["text"] for block in params.get("system", [])]
    for message in params["messages"]:
        content = message["content"]
        texts += [content] if isinstance(content, str) else [block["text"] for block in content]
    return key_of(params["model"], texts, params["max_tokens"])


def _output(message: Any) -> ModelOutput:
    text = "".join(block.text for block in message.content if block.type == "text")
    usage = message.usage
    read, write = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return ModelOutput(
        model=message.model,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(content=text, model=message.model, source="generate"),
                stop_reason=_STOPPED.get(str(message.stop_reason), "unknown"),
            )
        ],
        usage=ModelUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens + read + write,
            input_tokens_cache_read=read,
            input_tokens_cache_write=write,
        ),
    )
