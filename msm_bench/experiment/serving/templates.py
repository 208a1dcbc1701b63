"""Chat templates of the base and of its adapters: vLLM renders every chat with the base's, a checkpoint may have its own."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from inspect_ai.model import ChatMessageUser, GenerateConfig

from msm_bench.checkpoints import ResolvedModel
from msm_bench.errors import WorkError
from msm_bench.experiment.serving.client import Client
from msm_bench.experiment.serving.sampling import request
from msm_bench.specs import list_specs, load_spec

if TYPE_CHECKING:
    from msm_bench.engine.messages import Chat


class Templates:
    """Tokenizers with their templates, each loaded once.

    Args:
        base: The model whose template the server has.
        enable_thinking: Passed to the templates when given.
    """

    def __init__(self, base: ResolvedModel, enable_thinking: bool | None) -> None:
        self._base = base
        self._thinking = enable_thinking
        self._loaded: dict[str, tuple[Any, Chat]] = {}

    def chat(self, model: ResolvedModel) -> "Chat":
        """A model's template with its tokenizer."""
        return self._of(model)[1]

    def differ(self, models: Iterable[ResolvedModel]) -> bool:
        """Whether one of the models has another template than the base."""
        return any(self._source(model) != self._source(self._base) for model in models)

    def extra_body(self, model: ResolvedModel) -> dict[str, Any]:
        """What every request needs so that the server treats a chat as the model's trainer did."""
        extra: dict[str, Any] = {}
        if self._thinking is not None:
            extra["chat_template_kwargs"] = {"enable_thinking": self._thinking}
        if self._source(model) != self._source(self._base):
            extra["chat_template"] = self._source(model)
        # vLLM ends at the base's end token; a base that was trained on chats may have learnt to end a turn with another.
        ends = self.chat(model).turn_end() - {self._of(self._base)[0].eos_token_id}
        if ends:
            extra["stop_token_ids"] = sorted(ends)
        return extra

    def check(self, client: Client, name: str, model: ResolvedModel, config: GenerateConfig) -> bool:
        """Compare the tokens that the server makes of a chat with those of the model's own template.

        Args:
            client: Of the server.
            name: The model's on it.
            model: Whose template counts.
            config: With the `extra_body` of the requests.

        Returns:
            Whether the server told its tokens.

        Raises:
            WorkError: they differ.
            RequestError: the model has no chat template.
        """
        text = load_spec(list_specs()[0]).title
        ours = self.chat(model).prompt([ChatMessageUser(content=text)]).ids
        rendered = client.render(request(name, config, text))
        if rendered is not None and rendered.token_ids != ours:
            raise WorkError(
                f"The server makes other tokens of a chat for '{name}' than its own template does "
                f"({len(rendered.token_ids)} and {len(ours)} tokens).",
                "Take chat_template out of serve.args, and compare the tokenizers of base and adapter.",
            )
        return rendered is not None

    def _source(self, model: ResolvedModel) -> str | None:
        found = self._of(model)[0].chat_template
        return found if found is None or isinstance(found, str) else json.dumps(found, sort_keys=True)

    def _of(self, model: ResolvedModel) -> "tuple[Any, Chat]":
        source = model.template_source
        if source not in self._loaded:
            from transformers import AutoTokenizer

            from msm_bench.engine.messages import Chat

            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            self._loaded[source] = tokenizer, Chat(tokenizer, None, self._thinking, model.name)
        return self._loaded[source]
