"""The -M arguments of the `msm/` provider."""

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError

from msm_bench.errors import RequestError, UnknownNameError

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Attention = Literal["auto", "shared", "padded"]


class Settings(BaseModel, frozen=True):
    """What decides how a model is loaded; models with equal settings share one copy in memory.

    Attributes:
        device: "cpu", "cuda", "cuda:1", "mps"; None is the best there is, "auto" spreads over all GPUs.
        dtype: "auto" is bfloat16 where the hardware multiplies it, else float32.
        attn: "shared" keeps shared prefixes once, "padded" is the plain way; "auto" takes the first where it works.
        max_batch_size: At most so many samples at a time; None leaves it to the memory.
        graphs: On CUDA, decode by captured graphs and Triton kernels where they give the model's own logits: a step of 90 rows
            of an 8B model takes 9 ms with them on an H100 and 60 ms without.
    """

    device: str | None = None
    dtype: Dtype = "auto"
    attn: Attention = "auto"
    max_batch_size: int | None = Field(default=None, ge=1)
    graphs: bool = True


class ProviderArgs(BaseModel, frozen=True):
    """All -M arguments.

    Attributes:
        settings: Those that decide how the model is loaded.
        enable_thinking: Passed to the chat template when given.
        chat_template: Text of a chat template to use instead of the model's.
        revision: Branch, tag or commit of a hub model.
    """

    settings: Settings
    enable_thinking: bool | None = None
    chat_template: str | None = None
    revision: str | None = None


_NAMES = (*Settings.model_fields, "enable_thinking", "chat_template", "revision")


def parse_args(given: dict[str, Any]) -> ProviderArgs:
    """Check -M arguments.

    Raises:
        UnknownNameError: A name that does not exist.
        RequestError: A value that does not fit, or a template file that cannot be read.
    """
    for name in given:
        if name not in _NAMES:
            raise UnknownNameError("model argument (-M)", name, _NAMES)
    own = {name: value for name, value in given.items() if name in ("enable_thinking", "revision")}
    if given.get("chat_template") is not None:
        own["chat_template"] = _template(Path(str(given["chat_template"])))
    try:
        settings = Settings(**{name: value for name, value in given.items() if name in Settings.model_fields})
        return ProviderArgs(settings=settings, **own)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise RequestError(f"-M {name}={first['input']} does not fit: {first['msg']}.", _hint(name)) from error


def _template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"The chat template '{path}' cannot be read: {error}.", "Give the path of a Jinja file to -M chat_template."
        ) from error


def _hint(name: str) -> str:
    choices = {
        "dtype": get_args(Dtype),
        "attn": get_args(Attention),
        "enable_thinking": ("true", "false"),
        "graphs": ("true", "false"),
    }
    if name in choices:
        return f"Use one of: {', '.join(choices[name])}."
    return "Give a whole number of at least 1." if name == "max_batch_size" else "Give a text."
