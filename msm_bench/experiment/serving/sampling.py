"""How a server would sample a task's requests, read back from the server, since its defaults come from many places."""

from typing import Any

from inspect_ai.model import GenerateConfig
from inspect_ai.model._openai import openai_completion_params  # what Inspect sends for a configuration

from msm_bench.errors import WorkError
from msm_bench.experiment.serving.client import Client, Rendered

NEUTRAL: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": None,
}
"""What vLLM's answer leaves out stands at these, the defaults of its SamplingParams; its `top_k` 0 takes all tokens."""
_MORE = ("max_tokens", "min_tokens", "stop", "stop_token_ids", "ignore_eos", "n", "bad_words", "logit_bias")
_ASKED = ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed")
_NONE = {None: None, -1: 0}
"""Ways of saying "off" that mean the same."""


def request(model: str, config: GenerateConfig, content: str = "?") -> dict[str, Any]:
    """The body that Inspect's `vllm/` provider would send for one user message."""
    params = openai_completion_params(model=model, config=config, tools=False)
    extra = params.pop("extra_body", {})
    return {**params, **extra, "messages": [{"role": "user", "content": content}]}


def effective(rendered: Rendered) -> dict[str, Any]:
    """The sampling parameters of a request, the neutral ones among them."""
    given = rendered.sampling_params
    more = {name: given[name] for name in _MORE if given.get(name) not in (None, [], {}, False)}
    return {**{name: given.get(name, neutral) for name, neutral in NEUTRAL.items()}, **more}


def read_back(client: Client, model: str, task: str, config: GenerateConfig) -> dict[str, Any] | None:
    """The sampling parameters that a task's requests have on the server; None where it does not tell.

    Args:
        client: Of the server.
        model: The name that requests go to.
        task: For the message.
        config: The task's, with everything that the run adds.

    Raises:
        WorkError: the server would sample otherwise than the configuration asks for.
    """
    rendered = client.render(request(model, config))
    if rendered is None:
        return None
    found = effective(rendered)
    for name in _ASKED:
        asked = getattr(config, name)
        # At temperature 0 nothing is drawn, and vLLM sets the rest to neutral.
        if asked is None or (config.temperature == 0 and name in ("top_p", "top_k")):
            continue
        if _same(asked) != _same(found[name]):
            raise WorkError(
                f"The task '{task}' asks for {name} {asked}, and the server would sample with {found[name]}.",
                f"Set extra_body: {{{name}: {asked}}} in the task's configuration, or leave {name} out.",
            )
    return found


def _same(value: Any) -> Any:
    return _NONE.get(value, value)
