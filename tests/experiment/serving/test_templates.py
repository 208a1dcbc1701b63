"""A chat reaches the model on a server as its trainer wrote it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.model import ChatMessageUser, GenerateConfig
from tiny_models import make_model

from msm_bench.checkpoints import ResolvedModel, resolve
from msm_bench.errors import WorkError
from msm_bench.experiment.serving.client import Client, Rendered
from msm_bench.experiment.serving.templates import Templates


class Rendering(Client):
    """A server that makes given tokens of every chat, and remembers the last one."""

    def __init__(self, make: Callable[[str], tuple[int, ...]] | None) -> None:
        self._make = make
        self.asked: dict[str, Any] = {}

    def render(self, request: dict[str, Any]) -> Rendered | None:
        self.asked = request
        return self._make and Rendered(token_ids=self._make(request["messages"][0]["content"]), sampling_params={})


@pytest.fixture
def model(model_folder: Callable[..., Path]) -> ResolvedModel:
    return resolve(str(model_folder("llama")))


def test_other_tokens_than_the_template_s_stop_the_arm(model: ResolvedModel) -> None:
    templates, config = Templates(model, None), GenerateConfig()

    def right(text: str) -> tuple[int, ...]:
        return templates.chat(model).prompt([ChatMessageUser(content=text)]).ids

    assert templates.check(Rendering(right), "tiny", model, config)
    with pytest.raises(WorkError, match="makes other tokens of a chat for 'tiny'"):
        templates.check(Rendering(lambda text: right(text)[1:]), "tiny", model, config)
    assert not templates.check(Rendering(None), "tiny", model, config)


def test_requests_carry_what_the_template_is_given(model: ResolvedModel) -> None:
    templates = Templates(model, True)
    extra = templates.extra_body(model)
    assert extra == {"chat_template_kwargs": {"enable_thinking": True}}
    client = Rendering(lambda text: templates.chat(model).prompt([ChatMessageUser(content=text)]).ids)
    assert templates.check(client, "tiny", model, GenerateConfig(extra_body=extra))
    assert client.asked["model"] == "tiny" and client.asked["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_turn_ends_where_the_template_ends_it(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "base", "llama")
    assert Templates(resolve(str(folder)), None).extra_body(resolve(str(folder))) == {}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": "<s>"}))
    other = resolve(str(folder))
    templates = Templates(other, None)
    (end,) = templates.extra_body(other)["stop_token_ids"]
    assert templates.chat(other).tokens("<|im_end|>") == [end]
