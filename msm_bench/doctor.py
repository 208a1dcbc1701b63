"""What works on this machine, and the mend for what does not.

Nothing is downloaded, no model is loaded and no provider is called; heavy packages are imported inside the checks.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from msm_bench import __version__
from msm_bench.errors import DownloadError, UnknownNameError

Status = Literal["ok", "warn", "fail"]
DEFAULT_GRADER = "anthropic/claude-sonnet-4-6"
_CACHE_BYTES = 1_000_000_000
_LOG_BYTES = 200_000_000
# Inspect provider, the variables that hold its key (one is enough), the module and the package of its SDK.
_PROVIDERS = (
    ("anthropic", ("ANTHROPIC_API_KEY",), "anthropic", "anthropic"),
    ("openai", ("OPENAI_API_KEY",), "openai", "openai"),
    ("google", ("GOOGLE_API_KEY", "GEMINI_API_KEY"), "google.genai", "google-genai"),
    ("openrouter", ("OPENROUTER_API_KEY",), "openai", "openai"),
    ("together", ("TOGETHER_API_KEY",), "openai", "openai"),
    ("fireworks", ("FIREWORKS_API_KEY",), "openai", "openai"),
    ("deepseek", ("DEEPSEEK_API_KEY",), "openai", "openai"),
    ("mistral", ("MISTRAL_API_KEY",), "mistralai", "mistralai"),
    ("groq", ("GROQ_API_KEY",), "groq", "groq"),
    ("grok", ("XAI_API_KEY", "GROK_API_KEY"), "xai_sdk", "xai-sdk"),
)


class Check(BaseModel, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: `ok`; `warn` when something that not everybody needs is missing; `fail` when the package cannot do
            its work.
        detail: What was found.
        mend: What to do about it; empty when there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


def diagnose() -> list[Check]:
    """Look at everything; takes a few seconds, most of them the import of torch and the answer of the hub."""
    return [
        _python(),
        *_packages(),
        *_devices(),
        _embedded(),
        _disk("cache folder", *_cache_place()),
        _disk("logs folder", *_logs_place()),
        _hub(),
        *_providers(),
        _grader(),
        _registry(),
        _viewer(),
        _vllm(),
    ]


def render(checks: list[Check]) -> Table:
    """The checks as a table for a terminal."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("check", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        table.add_row(Text(check.name), Text(check.status, style=colours[check.status]), Text(check.detail), Text(check.mend))
    return table


def _python() -> Check:
    found = f"msm-bench {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check(name="python", status="ok", detail=found)


def _packages() -> list[Check]:
    """Every requirement of the installed package against what is installed."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires("msm-bench") or []]
    except importlib.metadata.PackageNotFoundError:
        return [
            Check(
                name="packages",
                status="fail",
                detail="msm-bench is not installed in this environment.",
                mend="Run 'pip install -e .' in the checkout, or 'pip install msm-bench'.",
            )
        ]
    found: list[str] = []
    wrong: list[Check] = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        plain = f"{requirement.name}{requirement.specifier}"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if version and requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} {version}")
        else:
            detail = f"{version} instead of {requirement.specifier}" if version else "not installed"
            wrong.append(Check(name=requirement.name, status="fail", detail=detail, mend=f"Run: pip install '{plain}'"))
    return [*wrong, Check(name="packages", status="ok", detail=", ".join(sorted(found)))]


def _devices() -> list[Check]:
    try:
        import torch
    except Exception as error:  # a broken build fails with OSError or worse
        detail = f"torch cannot be imported ({type(error).__name__}: {error})"
        return [Check(name="torch", status="fail", detail=detail, mend="Install torch again for this machine.")]
    checks: list[Check] = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if about.major >= 8 else "no bf16, float16 or float32 instead"
        detail = f"{about.name}, {about.total_memory / 1e9:.0f} GB, {bf16}"
        checks.append(Check(name=f"cuda:{index}", status="ok", detail=detail))
    if torch.backends.mps.is_available():
        checks.append(Check(name="mps", status="ok", detail="Apple GPU"))
    capability = torch.backends.cpu.get_cpu_capability()
    detail = f"{_cores()} cores, {capability}, {torch.get_num_threads()} torch threads{_memory()}"
    if checks:
        return [*checks, Check(name="cpu", status="ok", detail=detail)]
    return [
        Check(
            name="cpu",
            status="warn",
            detail=f"{detail}; no GPU",
            mend="Enough for the embedded model. Larger models want a GPU, or a server named with vllm/... or an API.",
        )
    ]


def _cores() -> int:
    # A container may have fewer cores than the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return ""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # what a container may use
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return f", {total / 1e9:.0f} GB memory"


def _embedded() -> Check:
    from msm_bench.checkpoints import EMBEDDED_NAME, embedded, store

    name = f"model {EMBEDDED_NAME}"
    try:
        folder = embedded.cached(store.cache_root(), embedded.chosen_source())
    except UnknownNameError as error:
        return Check(name=name, status="fail", detail=error.problem, mend=error.mend)
    if folder is None:
        return Check(
            name=name,
            status="warn",
            detail="not in the cache",
            mend="It is fetched at first use (0.1 to 0.3 GB); for machines without network copy the cache folder.",
        )
    found = store.damage(folder)
    if found is not None:
        return Check(
            name=name, status="warn", detail=f"damaged in '{folder}': {found}", mend="It is fetched again at next use."
        )
    return Check(name=name, status="ok", detail=f"{store.read_identity(folder).source} in '{folder}'")


def _cache_place() -> tuple[str, int, str]:
    from msm_bench.checkpoints import store

    return str(store.cache_root()), _CACHE_BYTES, "Set MSM_BENCH_CACHE to a folder that you can write to."


def _logs_place() -> tuple[str, int, str]:
    mend = "Set INSPECT_LOG_DIR to a folder that you can write to."
    return os.environ.get("INSPECT_LOG_DIR", "logs"), _LOG_BYTES, mend


def _disk(name: str, place: str, needed: int, mend: str) -> Check:
    if "://" in place:
        return Check(name=name, status="ok", detail=f"{place} (remote, not looked at)")
    folder = Path(place).expanduser().absolute()
    standing = next(path for path in (folder, *folder.parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        return Check(name=name, status="fail", detail=f"'{folder}' cannot be written to.", mend=mend)
    free = shutil.disk_usage(standing).free
    detail = f"'{folder}', {free / 1e9:.1f} GB free"
    if free < needed:
        return Check(name=name, status="warn", detail=detail, mend=f"Free {needed / 1e9:.1f} GB there. {mend}")
    return Check(name=name, status="ok", detail=detail)


def _hub() -> Check:
    from msm_bench.checkpoints import fetch

    if fetch.offline():
        return Check(name="hub", status="ok", detail="not asked: HF_HUB_OFFLINE is set, only cached models are used")
    try:
        fetch.hub_commit()
    except DownloadError as error:
        mend = "Models in folders and in the cache still work; set HF_HUB_OFFLINE=1 to spare the attempts."
        return Check(name="hub", status="warn", detail=error.problem, mend=mend)
    return Check(name="hub", status="ok", detail="reachable")


def _providers() -> list[Check]:
    checks: list[Check] = []
    for provider, variables, module, package in _PROVIDERS:
        key = next((variable for variable in variables if os.environ.get(variable)), None)
        if key is None:
            continue
        if _installed(module):
            checks.append(Check(name=f"provider {provider}", status="ok", detail=f"{key} is set, SDK installed"))
        else:
            detail = f"{key} is set, its SDK is not installed"
            checks.append(Check(name=f"provider {provider}", status="warn", detail=detail, mend=f"Run: pip install {package}"))
    if checks:
        return checks
    names = ", ".join(variables[0] for _, variables, _, _ in _PROVIDERS)
    return [
        Check(
            name="providers",
            status="warn",
            detail=f"no key is set (looked for {names})",
            mend="Local models work without; for judges and larger models set the provider's variable or a .env file.",
        )
    ]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _grader() -> Check:
    """Build the default grader's client, which checks key and SDK version and calls nobody."""
    if not os.environ.get("ANTHROPIC_API_KEY"):
        problem = "ANTHROPIC_API_KEY is not set"
    elif not _installed("anthropic"):
        problem = "the anthropic SDK is not installed"
    else:
        from inspect_ai.model import get_model

        try:
            get_model(DEFAULT_GRADER, memoize=False)
        except Exception as error:  # the SDK's own errors may quote settings, so only their kind is shown
            problem = f"Inspect cannot set it up ({type(error).__name__}); its SDK may be too old"
        else:
            return Check(name="grader", status="ok", detail=f"{DEFAULT_GRADER} can be set up (not called)")
    return Check(
        name="grader",
        status="warn",
        detail=f"{DEFAULT_GRADER} cannot judge: {problem}.",
        mend="Set ANTHROPIC_API_KEY and run 'pip install -U anthropic', or name another judge with "
        "--model-role grader=PROVIDER/MODEL.",
    )


def _registry() -> Check:
    """Load this package's entry point as Inspect does, and list what it registered."""
    from inspect_ai._util.registry import registry_find, registry_info

    mend = "Run 'pip install -e .' in the checkout again (or 'pip install --force-reinstall msm-bench')."
    entries = [entry for entry in importlib.metadata.entry_points(group="inspect_ai") if entry.name == "msm_bench"]
    if not entries:
        return Check(name="inspect registry", status="fail", detail="Inspect does not know this package.", mend=mend)
    try:
        entries[0].load()
    except Exception as error:  # whatever an import may raise
        detail = f"{entries[0].value} cannot be imported ({type(error).__name__}: {error})"
        return Check(name="inspect registry", status="fail", detail=detail, mend=mend)
    found = registry_find(lambda info: info.type == "task" and info.name.startswith("msm_bench/"))
    tasks = sorted(registry_info(task).name for task in found)
    if not tasks:
        return Check(name="inspect registry", status="fail", detail="no task of this package", mend=mend)
    return Check(name="inspect registry", status="ok", detail=", ".join(tasks))


def _viewer() -> Check:
    beside = Path(sys.executable).with_name("inspect")
    command = shutil.which("inspect") or (str(beside) if beside.exists() else None)
    if command is None:
        return Check(
            name="inspect view",
            status="warn",
            detail="There is no command 'inspect'.",
            mend="Activate the environment that msm-bench is installed in, or use 'python -m inspect_ai view'.",
        )
    return Check(name="inspect view", status="ok", detail=f"'{command} view' shows the logs")


def _vllm() -> Check:
    if _installed("vllm"):
        version = importlib.metadata.version("vllm")
        return Check(name="vllm", status="ok", detail=f"{version} is installed (not imported)")
    return Check(
        name="vllm",
        status="warn",
        detail="not installed; only needed to serve large models on this machine",
        mend="Install it in an environment of its own if you want it.",
    )
