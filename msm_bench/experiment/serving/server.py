"""A vLLM server for a base model and its adapters, through which Inspect's own `vllm/` provider evaluates them by name.

    with served("smollm2-135m", [checkpoint, other], Serving(), folder) as server:
        use = server.model(checkpoint, {"agentic_misalignment": task.config})
        eval_set([task], log_dir=..., metadata=use.metadata, **use.arguments)

`server.model` checks the adapter first and raises where the server serves anything else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inspect_ai.model import GenerateConfig, get_model

from msm_bench.checkpoints import ResolvedModel, resolve
from msm_bench.errors import MissingExtraError, RequestError, WorkError
from msm_bench.experiment.serving.adapters import Adapter, find_adapters, name_of_base
from msm_bench.experiment.serving.check import check_checkpoint, check_some_effect
from msm_bench.experiment.serving.client import Client
from msm_bench.experiment.serving.command import HOST, serve_command
from msm_bench.experiment.serving.process import free_port, running, wait_until
from msm_bench.experiment.serving.sampling import read_back
from msm_bench.experiment.serving.settings import Serving
from msm_bench.experiment.serving.templates import Templates
from msm_bench.specs import list_specs, load_spec

_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1"}
_PROBE_TOKENS = 256
_running: set[str] = set()
"""Names of bases with a server of this process."""


@dataclass(frozen=True)
class Use:
    """How one arm is evaluated on the server.

    Attributes:
        arguments: Keywords for `eval` and `eval_set`. The address is `model_base_url`, which is no part of a task's identity:
            a run goes on with the logs that it began on another port.
        metadata: For the log: `serving`, with what was checked and how the server samples.
    """

    arguments: dict[str, Any]
    metadata: dict[str, Any]


@contextmanager
def served(
    base: str, adapters: Iterable[Path], serving: Serving, folder: Path, say: Callable[[str], None] = lambda line: None
) -> Iterator["Server"]:
    """Start a server for a base model and adapters of it; it is stopped at the end, with all its processes, whatever happens.

    Args:
        base: The base's name, with or without `msm/`.
        adapters: Folders of checkpoints and adapters; one may be named twice.
        serving: The settings.
        folder: Gets the server's log, `server.log`.
        say: Gets a line before the server starts and when it answers.

    Raises:
        RequestError: there is no vLLM, an adapter is of another base, or a checkpoint carries no held-out rows.
        WorkError: the server does not come up, or does not serve what it was started with.
        ModelNotFoundError, NotAModelError, CorruptWeightsError, DownloadError: as `checkpoints.resolve`.
    """
    if find_spec("openai") is None:
        raise MissingExtraError(
            "Inspect's vllm/ provider needs the package 'openai'.", "pip install 'msm-bench[serve]' has it."
        )
    python = serving.find_python()
    model = resolve(base.removeprefix("msm/"))
    if model.adapter is not None:
        raise RequestError(f"The base '{base}' is an adapter itself.", "Name full weights.")
    name = name_of_base(base)
    if name in _running:
        # Inspect finds a server by the base's name, and would send the requests for the second to the first.
        raise RequestError(f"This process serves a base called '{name}' already.", "Serve one after the other.")
    found = find_adapters(model, name, adapters)
    templates = Templates(model, serving.enable_thinking)
    differ = templates.differ(adapter.model for adapter in found.values())
    log = folder / "server.log"
    with free_port() as port:
        command = serve_command(python, model, name, list(found.values()), serving, port, differ)
        root = f"http://{HOST}:{port}"
        say(f"server for {name} and {len(found)} adapters starts; its log is {log}")
        with running(command, log, _ENVIRONMENT) as exited, closing(Client(root)) as client:
            wait_until(client.healthy, exited, serving.start_seconds, log)
            missing = {name, *(adapter.name for adapter in found.values())} - set(client.models())
            if missing:
                raise WorkError(f"The server does not serve {', '.join(sorted(missing))}.", f"Read '{log}'.")
            say(f"server for {name} answers at {root}")
            _running.add(name)
            try:
                yield Server(client, f"{root}/v1", name, model, found, serving, templates)
            finally:
                _running.discard(name)
                # Inspect keeps the address of a base's server for as long as this process lives.
                get_model(f"vllm/{name}", base_url=f"{root}/v1", memoize=False).api.close()
                say(f"server for {name} stops")


@dataclass
class Server:
    """A running server. Made by `served`."""

    client: Client
    url: str
    base: str
    model_of_base: ResolvedModel
    adapters: Mapping[Path, Adapter]
    serving: Serving
    templates: Templates
    _checked: dict[str, dict[str, Any]] = field(default_factory=dict)

    def model(self, adapter: Path | None, configs: Mapping[str, GenerateConfig] | None = None) -> Use:
        """Check an adapter, and say how to evaluate it.

        Args:
            adapter: Its folder; None for the base alone.
            configs: Each task's configuration by its name, to read back how the server would sample it.

        Raises:
            WorkError: the server serves something else under the adapter's name, makes other tokens of a chat than the
                adapter's template, or would sample otherwise than a configuration asks for.
            RequestError: there is no chat template.
        """
        one = None if adapter is None else self.adapters[adapter.expanduser().absolute()]
        name, model = (self.base, self.model_of_base) if one is None else (one.name, one.model)
        if name not in self._checked:
            self._checked[name] = {"kind": "base"} if one is None else self._check(one)
        config = GenerateConfig(max_connections=self.serving.connections, extra_body=self.templates.extra_body(model) or None)
        told = self.templates.check(self.client, name, model, config)
        sampling = {
            task: read_back(self.client, name, task, of_task.merge(config)) for task, of_task in (configs or {}).items()
        }
        facts = {
            "engine": self.serving.engine,
            "version": self.client.version(),
            "args": self.serving.args,
            "model": model.identity,
            "adapter_check": self._checked[name],
            "sampling": sampling if told else None,
        }
        arguments: dict[str, Any] = {
            "model": f"vllm/{self.base}" if one is None else f"vllm/{self.base}:{one.name}",
            "model_base_url": self.url,
            **config.model_dump(exclude_none=True),
        }
        return Use(arguments, {"serving": {key: value for key, value in facts.items() if value is not None}})

    def _check(self, adapter: Adapter) -> dict[str, Any]:
        if adapter.rows is not None:
            found = check_checkpoint(self.client, adapter.name, self.base, adapter.rows, self.serving.tolerance)
            return {"kind": "held_out", **found.model_dump()}
        ids = self.templates.chat(self.model_of_base).tokens(load_spec(list_specs()[0]).text)[:_PROBE_TOKENS]
        return {"kind": "differs_from_base", **check_some_effect(self.client, adapter.name, self.base, ids)}
