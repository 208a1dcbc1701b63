"""A stand-in for vLLM's server with real weights: transformers and peft behind the requests that vLLM answers.

    standin.py -m vllm.entrypoints.openai.api_server --model MODEL --port N --lora-modules '{"name": ..., "path": ...}' ...

STANDIN_FAULTS, a JSON object, makes it serve adapters wrongly: name to `base` (the name leads to the base), `zero` (the adapter
is loaded and does nothing) or the folder of another adapter.
"""

import argparse
import json
import os
import threading
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
PENALTIES = ("frequency_penalty", "presence_penalty")
PASSED = ("max_tokens", "seed", "stop", "stop_token_ids")


class Standin:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.faults = json.loads(os.environ.get("STANDIN_FAULTS", "{}"))
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        self.model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        self.adapters = [json.loads(module) for module in args.lora_modules]
        for adapter in self.adapters:
            fault = self.faults.get(adapter["name"])
            path = fault if fault not in (None, "base", "zero") else adapter["path"]
            inner = self._inner(adapter["name"])
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(path, adapter_name=inner)
            else:
                self.model = PeftModel.from_pretrained(self.model, path, adapter_name=inner)
            if fault == "zero":
                for name, parameter in self.model.named_parameters():
                    if f"lora_B.{inner}." in name:
                        parameter.data.zero_()
        self.model.eval()
        self.lock = threading.Lock()
        self.defaults = dict(NEUTRAL)
        own = Path(args.model) / "generation_config.json"
        if args.generation_config == "auto" and own.is_file():
            given = json.loads(own.read_text())
            self.defaults |= {name: given[name] for name in NEUTRAL if given.get(name) is not None}

    @staticmethod
    def _inner(name: str) -> str:
        return name.replace(".", "_")  # torch's module names have no dots

    def under(self, name: str) -> Any:
        """The forward pass of a served name."""
        known = [adapter["name"] for adapter in self.adapters]
        if name not in (self.args.served_model_name, *known):
            raise web.HTTPNotFound(text=f"no model {name}")
        if name == self.args.served_model_name or self.faults.get(name) == "base":
            return self.model.disable_adapter() if self.adapters else torch.no_grad()
        self.model.set_adapter(self._inner(name))
        return torch.no_grad()

    def sampling(self, body: dict[str, Any]) -> dict[str, Any]:
        found = {name: body.get(name, default) for name, default in self.defaults.items()}
        found |= {name: body.get(name, 0.0) for name in PENALTIES}
        if found["temperature"] == 0:
            found |= {"top_p": 1.0, "top_k": 0}
        found |= {name: body[name] for name in PASSED if body.get(name) is not None}
        neutral = {**NEUTRAL, **dict.fromkeys(PENALTIES, 0.0)}
        return {name: value for name, value in found.items() if name not in neutral or value != neutral[name]}

    def prompt(self, body: dict[str, Any]) -> list[int]:
        template = body.get("chat_template")
        if template is not None and not self.args.trust_request_chat_template:
            raise web.HTTPBadRequest(text="Refused request with untrusted chat template.")
        text = self.tokenizer.apply_chat_template(
            body["messages"],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            **body.get("chat_template_kwargs", {}),
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "stand-in"})

    async def models(self, request: web.Request) -> web.Response:
        base = {"id": self.args.served_model_name, "object": "model", "max_model_len": 512}
        more = [{"id": each["name"], "object": "model", "parent": base["id"]} for each in self.adapters]
        return web.json_response({"object": "list", "data": [base, *more]})

    async def completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids = body["prompt"]
        with self.lock, self.under(body["model"]), torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        found: list[Any] = [None]
        found += [{str(token): {"logprob": float(logprobs[place, token])}} for place, token in enumerate(ids[1:])]
        choice = {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": found}
        return web.json_response({"id": "1", "object": "text_completion", "model": body["model"], "choices": [choice]})

    async def render(self, request: web.Request) -> web.Response:
        if not self.args.enable_scale_out:
            return web.json_response({"error": "disabled"}, status=403)
        body = await request.json()
        return web.json_response({"token_ids": self.prompt(body), "sampling_params": self.sampling(body)})

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        ids, sampling = self.prompt(body), self.sampling(body)
        drawn = sampling.get("temperature", 1.0) > 0
        if drawn:
            torch.manual_seed(sampling.get("seed", 0))
        with self.lock, self.under(body["model"]), torch.no_grad():
            out = self.model.generate(
                input_ids=torch.tensor([ids]),
                do_sample=drawn,
                max_new_tokens=min(body.get("max_tokens", 16), 16),
                pad_token_id=self.tokenizer.eos_token_id,
            )
        text = self.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": len(ids), "completion_tokens": out.shape[1] - len(ids), "total_tokens": out.shape[1]}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        print("chat", body["model"], json.dumps(sampling, sort_keys=True), flush=True)
        return web.json_response({**answer, "choices": [choice], "usage": usage})


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-m", dest="module")
    parser.add_argument("--model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--generation-config", default="auto")
    parser.add_argument("--enable-scale-out", action="store_true")
    parser.add_argument("--trust-request-chat-template", action="store_true")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-lora-rank", type=int)
    parser.add_argument("--max-cpu-loras", type=int)
    parser.add_argument("--lora-modules", nargs="+", default=[])
    args = parser.parse_args()
    ranks = [json.loads(Path(json.loads(each)["path"], "adapter_config.json").read_text())["r"] for each in args.lora_modules]
    assert not ranks or (args.enable_lora and max(ranks) <= args.max_lora_rank)
    standin = Standin(args)
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", standin.health),
            web.get("/version", standin.version),
            web.get("/v1/models", standin.models),
            web.post("/v1/completions", standin.completions),
            web.post("/v1/chat/completions", standin.chat),
            web.post("/v1/chat/completions/render", standin.render),
        ]
    )
    web.run_app(app, host=args.host, port=args.port, reuse_address=True, print=None)


if __name__ == "__main__":
    main()
