"""A local server that speaks to the real `anthropic` and `openai` SDKs, plays the generator, and misbehaves on command.

    with ProviderServer(Misbehaviour(transport=0.1, content=0.1)) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        ...
        assert server.bought_twice == 0

It answers Anthropic's Messages and Message Batches and OpenAI's chat completions. What it answers depends on the request's
bytes alone, so two runs that ask the same get the same. Transport faults come by the count of tries of a request; faults of
content stay with a request, so only another request (another attempt) can get rid of them.
"""

import asyncio
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from provider_writer import Writer, spoiled

_TRANSPORT = ("rate_limit", "overloaded", "server_error", "drop", "hang")
_CONTENT = ("refuse", "decline", "truncate", "empty", "wrong_tags", "unclosed_tag", "scratchpad", "placeholder")
_OF_LISTS = ("refuse", "decline", "truncate", "bad_json", "wrong_tags", "duplicates")


@dataclass
class Misbehaviour:
    """Shares of calls that go wrong, and how. `only` limits the faults to the named ones."""

    transport: float = 0.0
    content: float = 0.0
    batch: float = 0.0
    """Share of a batch's requests that expire or end in an error, at their first try."""
    only: tuple[str, ...] = ()
    hang_seconds: float = 30.0
    stages: tuple[str, ...] = ()
    """Tags of the stages whose content misbehaves; all where none is named."""
    drop_verdicts: float = 0.0
    seed: int = 0


@dataclass
class Ledger:
    """What the server has seen and sold."""

    tries: Counter[str] = field(default_factory=Counter)
    sold: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    tokens_in: int = 0
    tokens_out: int = 0
    cache_read: int = 0
    cache_written: int = 0
    keys: set[str] = field(default_factory=set)
    batches: int = 0


class ProviderServer:
    """The server, in a thread of its own while it is entered."""

    def __init__(self, misbehaviour: Misbehaviour | None = None, *, cache: bool = True, batch_seconds: float = 0.0) -> None:
        self.misbehaviour = misbehaviour or Misbehaviour()
        self.ledger = Ledger()
        self.refuse_keys = False
        self.on_sale: Callable[[int], None] = lambda sold: None
        self.latency = 0.0
        self.crashes: list[Exception] = []
        self._cache = cache
        self._cached: set[str] = set()
        self._batch_seconds = batch_seconds
        self._batches: dict[str, dict[str, Any]] = {}
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> "ProviderServer":
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if self.crashes:
            raise self.crashes[0]

    @property
    def bought_twice(self) -> int:
        """Calls that were answered in full although the same request had been answered in full before."""
        return sum(count - 1 for count in self.ledger.sold.values())

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**28, middlewares=[self._noting_crashes])
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/batches", self._create_batch)
        app.router.add_get("/v1/messages/batches/{batch}", self._get_batch)
        app.router.add_get("/v1/messages/batches/{batch}/results", self._batch_results)
        app.router.add_post("/v1/chat/completions", self._completions)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _noting_crashes(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            return await handler(request)
        except (ConnectionError, web.HTTPException):  # the client went away, as one that is killed does
            raise
        except Exception as error:  # a mistake of this file must not look like a misbehaving provider
            self.crashes.append(error)
            return web.Response(status=400, text=repr(error))

    # Transport

    def _u(self, *parts: object) -> float:
        text = "/".join(map(str, (self.misbehaviour.seed, *parts)))
        return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12

    def _pick(self, names: tuple[str, ...], *parts: object) -> str:
        allowed = [name for name in names if not self.misbehaviour.only or name in self.misbehaviour.only]
        return allowed[int(self._u("pick", *parts) * len(allowed))] if allowed else ""

    async def _transport(self, request: web.Request, digest: str, dialect: str) -> web.StreamResponse | None:
        """A fault of the transport, or None."""
        self.ledger.keys.add(request.headers.get("x-api-key") or request.headers.get("authorization", ""))
        if self.refuse_keys:
            key = request.headers.get("x-api-key") or request.headers.get("authorization", "")
            return _error(dialect, 401, "authentication_error", f"invalid key: {key}")
        attempt = self.ledger.tries[digest]
        self.ledger.tries[digest] += 1
        if attempt >= 3 or self._u("transport", digest, attempt) >= self.misbehaviour.transport:
            return None
        fault = self._pick(_TRANSPORT, "transport", digest, attempt)
        self.ledger.faults[fault] += bool(fault)
        if fault == "rate_limit":
            return _error(dialect, 429, "rate_limit_error", "too many requests", {"retry-after": "0.05"})
        if fault == "overloaded":
            return _error(dialect, 529, "overloaded_error", "overloaded", {"retry-after": "0.05"})
        if fault == "server_error":
            return _error(dialect, 500, "api_error", "internal error")
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        if fault == "hang":
            await asyncio.sleep(self.misbehaviour.hang_seconds)
            return _error(dialect, 500, "api_error", "too late")
        return None

    # Anthropic

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        digest = _digest(body)
        if fault := await self._transport(request, digest, "anthropic"):
            return fault
        await asyncio.sleep(self.latency)
        message = self._message(body, digest)
        response = web.json_response(message, headers={"request-id": f"req_{digest[:16]}"})
        return await self._deliver(request, response, digest, message["usage"])

    def _message(self, body: dict[str, Any], digest: str) -> dict[str, Any]:
        system = [block["text"] for block in body.get("system", [])]
        text, stop = self._written(system, _anthropic_user(body), digest)
        prompt = sum(len(part) for part in system) // 4
        read, written = self._use_cache(body)
        usage = {
            "input_tokens": prompt - read - written + len(_anthropic_user(body)) // 4,
            "output_tokens": max(1, len(text) // 4),
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
        }
        return {
            "id": f"msg_{digest[:24]}",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": {"stop": "end_turn", "length": "max_tokens", "filter": "refusal"}[stop],
            "stop_sequence": None,
            "usage": usage,
        }

    def _use_cache(self, body: dict[str, Any]) -> tuple[int, int]:
        """Tokens of the system blocks that were read from and written to the cache."""
        if not self._cache:
            return 0, 0
        prefix, tokens, read, written = "", 0, 0, 0
        for block in body.get("system", []):
            prefix += block["text"]
            tokens += len(block["text"]) // 4
            if "cache_control" in block:
                key = hashlib.sha256(f"{body['model']}/{prefix}".encode()).hexdigest()
                if key in self._cached:
                    read = tokens
                else:
                    self._cached.add(key)
                    written = tokens - read
        return read, written

    async def _deliver(
        self, request: web.Request, response: web.Response, digest: str, usage: dict[str, int]
    ) -> web.StreamResponse:
        """Sends an answer, and counts it as sold if there was still somebody to take it."""
        await response.prepare(request)
        await response.write_eof()
        if request.transport is not None and not request.transport.is_closing():
            self._sell(digest, usage)
        else:
            self.ledger.faults["nobody took it"] += 1
        return response

    def _sell(self, digest: str, usage: dict[str, int]) -> None:
        self.ledger.sold[digest] += 1
        self.ledger.tokens_in += usage["input_tokens"]
        self.ledger.tokens_out += usage["output_tokens"]
        self.ledger.cache_read += usage.get("cache_read_input_tokens", 0)
        self.ledger.cache_written += usage.get("cache_creation_input_tokens", 0)
        self.on_sale(sum(self.ledger.sold.values()))

    # Anthropic's batches

    async def _create_batch(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if fault := await self._transport(request, _digest(body), "anthropic"):
            return fault
        assert self._loop is not None
        name = f"msgbatch_{len(self._batches):04}"
        self.ledger.batches += 1
        self._batches[name] = {"requests": body["requests"], "ends": self._loop.time() + self._batch_seconds}
        for entry in body["requests"]:
            digest = _digest(entry["params"])
            attempt = self.ledger.tries[digest]
            self.ledger.tries[digest] += 1
            entry["fault"] = ""
            if attempt == 0 and self._u("batch", digest) < self.misbehaviour.batch:
                entry["fault"] = ("expired", "errored")[self._u("which", digest) < 0.5]
                self.ledger.faults[entry["fault"]] += 1
            else:
                entry["message"] = self._message(entry["params"], digest)
                self._sell(digest, entry["message"]["usage"])
        return web.json_response(self._batch(name))

    async def _get_batch(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["batch"]
        if name not in self._batches:
            return _error("anthropic", 404, "not_found_error", "no such batch")
        return web.json_response(self._batch(name))

    async def _batch_results(self, request: web.Request) -> web.StreamResponse:
        lines = []
        for entry in self._batches[request.match_info["batch"]]["requests"]:
            result: dict[str, Any] = {"type": "succeeded", "message": entry.get("message")}
            if entry["fault"] == "expired":
                result = {"type": "expired"}
            elif entry["fault"] == "errored":
                error = {"type": "overloaded_error", "message": "overloaded"}
                result = {"type": "errored", "error": {"type": "error", "error": error, "request_id": None}}
            lines.append(json.dumps({"custom_id": entry["custom_id"], "result": result}))
        return web.Response(text="\n".join(lines) + "\n", content_type="application/x-jsonl")

    def _batch(self, name: str) -> dict[str, Any]:
        assert self._loop is not None
        batch = self._batches[name]
        ended = self._loop.time() >= batch["ends"]
        faults = Counter(entry["fault"] for entry in batch["requests"])
        counts = {"processing": 0 if ended else len(batch["requests"]), "canceled": 0}
        counts |= {
            "succeeded": faults[""] if ended else 0,
            "errored": faults["errored"] if ended else 0,
            "expired": faults["expired"] if ended else 0,
        }
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": "2026-11-26T00:00:00Z",
            "expires_at": "2026-11-27T00:00:00Z",
            "ended_at": "2026-11-26T00:00:01Z" if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{name}/results" if ended else None,
        }

    # OpenAI

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        digest = _digest(body)
        if fault := await self._transport(request, digest, "openai"):
            return fault
        await asyncio.sleep(self.latency)
        system = "\n".join(_text(message["content"]) for message in body["messages"] if message["role"] != "user")
        user = _text(body["messages"][-1]["content"])
        text, stop = self._written([system], user, digest)
        prompt = (len(system) + len(user)) // 4
        read = 0
        key = hashlib.sha256(f"{body['model']}/{system}".encode()).hexdigest()
        if self._cache and key in self._cached:
            read = len(system) // 4
        self._cached.add(key)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": max(1, len(text) // 4),
            "total_tokens": prompt + max(1, len(text) // 4),
            "prompt_tokens_details": {"cached_tokens": read},
        }
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "finish_reason": {"stop": "stop", "length": "length", "filter": "content_filter"}[stop],
            "logprobs": None,
        }
        counted = {"input_tokens": prompt - read, "output_tokens": usage["completion_tokens"], "cache_read_input_tokens": read}
        answer = {"id": f"chatcmpl-{digest[:20]}", "object": "chat.completion", "created": 1, "model": body["model"]}
        response = web.json_response({**answer, "choices": [choice], "usage": usage})
        return await self._deliver(request, response, digest, counted)

    # The generator

    def _written(self, system: list[str], user: str, digest: str) -> tuple[str, str]:
        """The answer to a prompt and how it ended (stop, length, filter)."""
        instruction = "\n".join(system)
        tags = re.findall(r"^<(\w+)>", instruction, re.MULTILINE)
        stage = tags[0] if tags else ""
        text = Writer(instruction, user, digest, self._u("verdict", digest) < self.misbehaviour.drop_verdicts).write(stage)
        named = not self.misbehaviour.stages or stage in self.misbehaviour.stages
        if not named or self._u("content", digest) >= self.misbehaviour.content:
            return text, "stop"
        lists = stage in ("domains", "subdomains", "assertions", "types", "ideas", "questions")
        fault = self._pick(_OF_LISTS if lists else _CONTENT, "content", digest)
        self.ledger.faults[fault] += bool(fault)
        return spoiled(text, stage, fault)


def _anthropic_user(body: dict[str, Any]) -> str:
    return _text(body["messages"][-1]["content"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(block["text"] for block in content)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _error(dialect: str, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error: dict[str, Any] = {"type": kind, "message": message}
    body = {"type": "error", "error": error} if dialect == "anthropic" else {"error": {**error, "code": kind, "param": None}}
    return web.json_response(body, status=status, headers=headers)
