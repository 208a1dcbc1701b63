"""The provider through Inspect itself."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, task
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ContentReasoning, GenerateConfig, Model, ModelOutput, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from msm_bench.engine import engine as engines
from msm_bench.errors import ContextTooShortError, RequestError, UnknownNameError

pytestmark = pytest.mark.anyio
LONG = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. " * 4


@task
def questions() -> Task:
    samples = [Sample(id=f"s{index}", input=f"{LONG} Question {index}?", target="fox") for index in range(5)]
    return Task(dataset=samples, solver=generate(), scorer=includes())


def run(model: Model, tmp_path: Path, **options: Any) -> EvalLog:
    options = {"temperature": 1.0, "max_tokens": 12, "epochs": 4, **options}
    log = eval(questions(), model=model, log_dir=str(tmp_path), display="none", **options)[0]
    assert log.status == "success", log.error
    return log


def outputs(log: EvalLog) -> dict[tuple[Any, int], ModelOutput]:
    assert log.samples is not None
    return {(sample.id, sample.epoch): sample.output for sample in log.samples}


def test_evaluation_shares_prefixes_and_logs_what_it_did(model_of: Callable[..., Model], tmp_path: Path) -> None:
    model = model_of()
    found = outputs(run(model, tmp_path, temperature=0.7, seed=3))
    assert len(found) == 20
    asked = sum(output.usage.total_tokens - output.usage.output_tokens for output in found.values() if output.usage)
    cached = sum(output.usage.input_tokens_cache_read or 0 for output in found.values() if output.usage)
    assert cached > 0.7 * asked
    output = found["s0", 1]
    assert output.usage is not None and output.metadata is not None
    assert output.usage.output_tokens == 12 and output.stop_reason == "max_tokens"
    assert output.metadata["identity"]["source"] == "folder" and len(output.metadata["identity"]["sha256"]) == 64
    sampling = output.metadata["sampling"]
    assert (sampling["temperature"], sampling["top_p"], sampling["top_k"], sampling["seed"]) == (0.7, 1.0, None, 3)
    assert output.metadata["engine"]["attention"] == "shared" and output.metadata["engine"]["dtype"] == "float32"


def test_seed_repeats_the_run_and_epochs_differ(model_of: Callable[..., Model], tmp_path: Path) -> None:
    model = model_of()

    def texts(**options: Any) -> dict[tuple[Any, int], str]:
        return {key: output.completion for key, output in outputs(run(model, tmp_path, **options)).items()}

    first = texts(seed=3)
    assert texts(seed=3, max_connections=2) == first
    assert texts(seed=4) != first
    assert all(len({first[f"s{index}", epoch] for epoch in range(1, 5)}) == 4 for index in range(5))


async def test_unset_parameters_do_not_come_from_the_model(model_folder: Callable[..., Path], tmp_path: Path) -> None:
    """generation_config.json is left alone, except for the tokens that end a generation."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.1, "top_k": 1, "eos_token_id": [2, 77]}')
    model = get_model(f"msm/{folder}", memoize=False, dtype="float32", device="cpu")
    output = await model.generate("fox", config=GenerateConfig(max_tokens=2))
    assert output.metadata is not None and output.metadata["sampling"]["temperature"] == 1.0
    assert output.metadata["sampling"]["top_k"] is None
    assert model.api.engine.loaded.ends == {2, 77}  # type: ignore[attr-defined]
    model.api.close()


async def test_why_it_stopped(model_of: Callable[..., Model]) -> None:
    model = model_of()
    whole = await model.generate("fox", config=GenerateConfig(temperature=0, max_tokens=40, logprobs=True))
    text = whole.completion
    assert len(text) > 10
    stop = text[5:8]
    cut = await model.generate("fox", config=GenerateConfig(temperature=0, max_tokens=40, stop_seqs=["never", stop]))
    assert cut.completion == text[: text.index(stop)] and cut.stop_reason == "stop"
    assert cut.usage is not None and cut.usage.output_tokens < 40
    short = await model.generate("fox", config=GenerateConfig(temperature=0, max_tokens=3))
    assert short.stop_reason == "max_tokens" and text.startswith(short.completion)
    full = await model.generate(LONG, config=GenerateConfig(temperature=0, max_tokens=4000))
    assert full.usage is not None
    assert full.stop_reason == "stop" or (full.stop_reason == "model_length" and full.usage.total_tokens == 512)
    with pytest.raises(ContextTooShortError, match="context holds 512"):
        await model.generate(LONG * 4)


async def test_end_token_ends(model_of: Callable[..., Model]) -> None:
    model = model_of()
    end = model.api.engine.loaded.tokenizer.eos_token_id  # type: ignore[attr-defined]
    output = await model.generate("fox", config=GenerateConfig(logit_bias={end: 1000}, max_tokens=9))
    assert (output.completion, output.stop_reason) == ("", "stop")
    assert output.usage is not None and output.usage.output_tokens == 1
    with pytest.raises(RequestError, match="names the token 9999"):
        await model.generate("fox", config=GenerateConfig(logit_bias={9999: 1}))


async def test_choices_and_logprobs(model_of: Callable[..., Model]) -> None:
    model = model_of()
    config = GenerateConfig(num_choices=3, max_tokens=6, logprobs=True, top_logprobs=2, seed=1)
    output = await model.generate("fox", config=config)
    assert len({choice.message.text for choice in output.choices}) == 3
    for choice in output.choices:
        assert choice.logprobs is not None and len(choice.logprobs.content) <= 6
        assert "".join(each.token for each in choice.logprobs.content).startswith(choice.message.text)
        assert all(len(each.top_logprobs or []) == 2 and each.logprob <= 0 for each in choice.logprobs.content)
    again = await model.generate("fox", config=config)
    assert again.completion != output.completion  # the second such request outside a sample


async def test_unclosed_thinking_is_reasoning(model_of: Callable[..., Model]) -> None:
    output = await model_of(enable_thinking=True).generate("fox", config=GenerateConfig(max_tokens=8, temperature=0))
    assert isinstance(output.message.content, list)
    assert isinstance(output.message.content[0], ContentReasoning)
    assert output.completion == "" and output.usage is not None and output.usage.reasoning_tokens


def test_models_of_one_name_share_one_engine(model_of: Callable[..., Model]) -> None:
    first, second = model_of(), model_of(enable_thinking=True)
    assert first.api.engine is second.api.engine  # type: ignore[attr-defined]
    assert model_of(max_batch_size=3).api.engine is not first.api.engine  # type: ignore[attr-defined]


async def test_closed_model_can_be_used_again(model_of: Callable[..., Model]) -> None:
    model = model_of()
    await model.generate("fox", config=GenerateConfig(max_tokens=1))
    before = model.api.engine  # type: ignore[attr-defined]
    model.api.close()
    assert id(before) not in engines._users
    assert (await model.generate("fox", config=GenerateConfig(max_tokens=1))).usage is not None


def test_arguments_are_checked(model_of: Callable[..., Model], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'dtpye'. Did you mean 'dtype'\?.*enable_thinking"):
        model_of(dtpye="float32")
    with pytest.raises(RequestError, match=r"dtype=int8.*Use one of: auto"):
        model_of(dtype="int8")
    with pytest.raises(RequestError, match="max_batch_size=0"):
        model_of(max_batch_size=0)
    with pytest.raises(RequestError, match="no device 'cuda:7'"):
        model_of(device="cuda:7")
    with pytest.raises(RequestError, match=r"nothing\.jinja"):
        model_of(chat_template=str(tmp_path / "nothing.jinja"))
    with pytest.raises(RequestError, match="does not attend to its whole context"):
        model_of("windowed", attn="shared")


async def test_template_from_a_file(model_of: Callable[..., Model], tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    model = model_of(chat_template=str(file))
    output = await model.generate("fox", config=GenerateConfig(max_tokens=2))
    assert output.usage is not None
    assert output.usage.input_tokens == len(await model.api.tokenize("fox"))


def test_engine_is_kept_busy(model_of: Callable[..., Model]) -> None:
    """Inspect holds requests back unless told otherwise; the user's own word counts."""
    model = model_of()
    assert model.config.adaptive_connections is False and model.api.max_connections() >= 256
    assert model_of(config=GenerateConfig(max_connections=3)).config.adaptive_connections is None


def test_naming_the_provider_does_not_import_torch() -> None:
    code = "import sys, msm_bench.engine, msm_bench.engine.registration; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
