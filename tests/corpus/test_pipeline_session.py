"""Asking through the real SDKs of Anthropic and OpenAI, against a local server that misbehaves."""

import os
import zipfile
from pathlib import Path

import anyio
import pytest
from inspect_ai.log import list_eval_logs, read_eval_log
from inspect_ai.model import BatchConfig, GenerateConfig, Model, get_model
from provider_server import Misbehaviour, ProviderServer

from msm_bench.corpus.pipeline.asking import SAMPLES, Session
from msm_bench.corpus.pipeline.batches import BatchJournal
from msm_bench.corpus.pipeline.budget import Purse
from msm_bench.corpus.pipeline.calling import Ask
from msm_bench.corpus.pipeline.planning import _reader_of_ideas
from msm_bench.corpus.pipeline.prices import load_prices
from msm_bench.corpus.pipeline.prompts import Prompt, fill, slots_of
from msm_bench.corpus.pipeline.replies import finished_text, tagged
from msm_bench.corpus.pipeline.report import yields_of
from msm_bench.corpus.pipeline.store import Store
from msm_bench.errors import RequestError, WorkError
from msm_bench.specs import load_spec

CLAUDE = "anthropic/claude-opus-4-6"
GPT = "openai-api/local/gpt"
KEY = "test-key-that-nobody-may-read-0123456789"
SPEC = load_spec("philosophy").render("Qwen", "Alibaba")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in ("ANTHROPIC_API_KEY", "LOCAL_API_KEY"):
        monkeypatch.setenv(name, KEY)


def model_at(server: ProviderServer, name: str = CLAUDE, **args) -> Model:
    suffix = "" if name == CLAUDE else "/v1"
    return get_model(name, base_url=server.url + suffix, memoize=False, **({"max_retries": 6} | args))


def read_document(text: str) -> str:
    (content,) = tagged(text, "document")
    return finished_text(content, "document", 200)


def document_asks(count: int, start: int = 0) -> list[Ask[str]]:
    slots = {name: "X" for name in slots_of("document_values")} | {"model_name": "Qwen", "provider_name": "Alibaba"}
    prompts = [fill("document_values", **slots | {"idea": f"idea {number}"}) for number in range(start, start + count)]
    return [Ask("documents", f"i{start + n:03}", prompt, 3000, read_document) for n, prompt in enumerate(prompts)]


def run(folder: Path, model: Model, asks, *, budget=None, config=None, recover=False):
    """The answers to some asks, given up and yields, in a session of its own."""
    settings = GenerateConfig(max_connections=50, max_retries=3, attempt_timeout=4).merge(config or GenerateConfig())
    with Store(folder) as store:
        price = load_prices().price(str(model))
        session = Session(
            store,
            SPEC,
            {"generator": model, "grader": model},
            {"generator": price, "grader": price},
            Purse(budget, store.spent()),
            settings,
            {"spec": "philosophy"},
        )

        async def main():
            try:
                if recover:
                    session.caller.recovered = await BatchJournal(folder, [model], poll_seconds=0.05).collect()
                return await session.answers(asks)
            finally:
                await model.api.aclose()

        return anyio.run(main), session.given_up(asks), yields_of(store)


@pytest.mark.parametrize("name", [CLAUDE, GPT])
def test_a_misbehaving_provider_costs_no_item_and_sells_nothing_twice(tmp_path, name):
    with ProviderServer(Misbehaviour(transport=0.15, content=0.2, hang_seconds=20)) as server:
        answers, given_up, (stage,) = run(tmp_path, model_at(server, name), document_asks(36))
        assert server.bought_twice == 0
        assert sum(server.ledger.faults.values()) > 5
        assert set(answers) | set(given_up) == {ask.item for ask in document_asks(36)} and len(answers) >= 33
        assert all("Qwen" in answer.value and "<" not in answer.value for answer in answers.values())
        assert stage.calls == sum(server.ledger.sold.values()) and stage.kept == len(answers)
        assert stage.usage.output == server.ledger.tokens_out
        assert stage.usage.cache_read == server.ledger.cache_read
        sold = sum(server.ledger.sold.values())
        again, _, _ = run(tmp_path, model_at(server, name), document_asks(36))
        assert again == answers and sum(server.ledger.sold.values()) == sold


FAULTS = {
    "refuse": "refused",
    "decline": "refused",
    "truncate": "truncated",
    "empty": "empty",
    "wrong_tags": "missing_tag",
    "unclosed_tag": "missing_tag",
    "scratchpad": "stray_tag",
    "placeholder": "placeholder",
}


def test_every_fault_of_a_text_has_its_reason_and_an_end(tmp_path):
    for fault, why in FAULTS.items():
        with ProviderServer(Misbehaviour(content=1.0, only=(fault,))) as server:
            answers, given_up, (stage,) = run(tmp_path / fault, model_at(server), document_asks(2))
        assert answers == {} and set(given_up.values()) == {why}
        assert stage.rejected == {why: stage.calls} and stage.calls in (4, 6)


@pytest.mark.parametrize(("fault", "why"), [("bad_json", "unreadable"), ("duplicates", "too_few")])
def test_every_fault_of_a_list_has_its_reason(tmp_path, fault, why):
    prompt = fill("ideas", **{name: "X" for name in slots_of("ideas")} | {"count": 8})
    with ProviderServer(Misbehaviour(content=1.0, only=(fault,))) as server:
        ask = Ask("ideas", "c", prompt, 3000, _reader_of_ideas(8))
        answers, given_up, _ = run(tmp_path, model_at(server), [ask])
    assert answers == {} and given_up == {"c": why}


def test_the_spec_stands_first_and_is_read_from_the_cache(tmp_path):
    with ProviderServer() as server:
        _, _, (stage,) = run(tmp_path, model_at(server), document_asks(12), config=GenerateConfig(max_connections=1))
    shared = len(SPEC) // 4
    assert stage.usage.cache_read >= 11 * shared
    # Nothing but spec and instruction is ever written to the cache, and that once.
    assert shared <= stage.usage.cache_write < 1.3 * shared
    assert stage.usage.cache_read > 0.8 * stage.usage.prompt


def test_a_budget_stops_between_items_and_is_never_passed(tmp_path):
    with ProviderServer() as server:
        with pytest.raises(WorkError, match=r"budget of \$0.3 is spent"):
            run(tmp_path, model_at(server), document_asks(36), budget=0.3)
        with Store(tmp_path) as store:
            assert 0.15 < store.spent() <= 0.3
            bought = len(store)
        assert bought == sum(server.ledger.sold.values())
        answers, _, _ = run(tmp_path, model_at(server), document_asks(36), budget=10.0)
        assert len(answers) == 36 and server.bought_twice == 0


def test_the_log_shows_what_was_asked_and_answered(tmp_path):
    with ProviderServer() as server:
        answers, _, _ = run(tmp_path, model_at(server), document_asks(3))
    (info,) = list_eval_logs(str(tmp_path / "logs"))
    log = read_eval_log(info)
    assert log.status == "success" and log.eval.task == "corpus_documents" and len(log.samples or []) == 3
    for sample in log.samples or []:
        system, user, assistant = sample.messages
        assert system.text.startswith(SPEC) and f"idea {int(str(sample.id)[1:])}" in user.text
        assert answers[str(sample.id)].value in assistant.text
        assert list(sample.role_usage) == ["generator"]


def test_in_a_large_stage_items_share_a_sample_and_each_has_its_span(tmp_path):
    with ProviderServer() as server:
        found, _, _ = run(tmp_path, model_at(server), document_asks(3 * SAMPLES))
    log = read_eval_log(list_eval_logs(str(tmp_path / "logs"))[0])
    assert log.samples is not None and len(log.samples) == SAMPLES
    answered = {}
    for sample in log.samples:
        spans = {event.id: event.name for event in sample.events if event.event == "span_begin"}
        for event in sample.events:
            if event.event == "model":
                answered[spans[event.span_id]] = event.output.completion
        assert set(sample.metadata["items"]) <= set(spans.values())
    assert set(answered) == set(found) and all(found[item].value in text for item, text in answered.items())


def test_a_usage_that_cannot_be_is_not_known_and_loses_no_answer(tmp_path, monkeypatch):
    with ProviderServer() as server:
        monkeypatch.setattr(server, "_use_cache", lambda body: (10**6, 0))  # more from the cache than was sent
        found, given_up, yields = run(tmp_path, model_at(server), document_asks(2))
        assert len(found) == 2 and not given_up and server.bought_twice == 0
    assert yields[0].dollars is None and yields[0].usage.output == 0


@pytest.mark.parametrize("name", [CLAUDE, GPT])
def test_a_refused_key_ends_the_run_at_once_and_is_nowhere_written(tmp_path, name, capfd):
    with ProviderServer() as server:
        server.refuse_keys = True
        with pytest.raises(RequestError, match="Set the key") as caught:
            run(tmp_path, model_at(server, name), document_asks(30))
        assert any(KEY in seen for seen in server.ledger.keys)  # the key did travel, so the test looks for something
    assert KEY not in str(caught.value) and "(key)" in str(caught.value)
    assert KEY not in "".join(capfd.readouterr())
    assert not list(_files_with(tmp_path, KEY))
    with ProviderServer(Misbehaviour(transport=0.3, only=("server_error", "rate_limit"))) as server:
        run(tmp_path, model_at(server, name), document_asks(5))
    assert not list(_files_with(tmp_path, KEY))


def _files_with(folder: Path, text: str):
    for path in folder.rglob("*"):
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as archive:
                if any(text.encode() in archive.read(name) for name in archive.namelist()):
                    yield path
        elif path.is_file() and text.encode() in path.read_bytes():
            yield path


def test_a_provider_that_is_down_ends_the_run_and_the_next_one_goes_on(tmp_path):
    config = GenerateConfig(max_retries=0)
    with ProviderServer(Misbehaviour(transport=1.0, only=("server_error",))) as server:
        with pytest.raises(WorkError, match="Run the same command again"):
            run(tmp_path, model_at(server, max_retries=0), document_asks(8), config=config)
        server.misbehaviour = Misbehaviour()
        answers, _, _ = run(tmp_path, model_at(server, max_retries=0), document_asks(8), config=config)
        assert len(answers) == 8 and server.bought_twice == 0


def test_a_stage_that_yields_nothing_is_stopped(tmp_path):
    with ProviderServer(Misbehaviour(content=1.0, only=("refuse",))) as server:
        with pytest.raises(WorkError, match="Only 0 of the first 50 items"):
            run(tmp_path, model_at(server), document_asks(70), config=GenerateConfig(max_connections=5))
        assert sum(server.ledger.sold.values()) < 2 * 70


def test_equal_prompts_are_bought_once(tmp_path):
    one = document_asks(1)[0]
    twin = Ask(one.stage, "twin", Prompt(one.prompt.instruction, one.prompt.message), one.max_tokens, one.read)
    with ProviderServer() as server:
        answers, _, _ = run(tmp_path, model_at(server), [one, twin])
        assert sum(server.ledger.sold.values()) == 1
    assert answers["i000"] == answers["twin"]


BATCH = GenerateConfig(batch=BatchConfig(size=1000, send_delay=0.1, tick=0.05))


def unlimited() -> GenerateConfig:
    return BATCH.model_copy(update={"attempt_timeout": 60})


def test_a_batch_that_ends_partly_expired_and_errored_loses_nothing(tmp_path):
    with ProviderServer(Misbehaviour(batch=0.3, content=0.1)) as server:
        answers, given_up, (stage,) = run(tmp_path, model_at(server), document_asks(30), config=unlimited())
        assert server.ledger.faults["expired"] + server.ledger.faults["errored"] >= 3
        assert len(answers) + len(given_up) == 30 and len(answers) >= 28
        assert server.bought_twice == 0 and server.ledger.batches >= 2
    price = load_prices().price(CLAUDE)
    assert price is not None and stage.dollars == pytest.approx(price.dollars(stage.usage) / 2, rel=1e-3)


def test_a_batch_survives_the_run_that_sent_it(tmp_path):
    """The run that sent the batch is gone before its answers came; the next one takes them and sends nothing again."""
    with ProviderServer(batch_seconds=1.0) as server:
        with pytest.raises(TimeoutError):
            _run_for(tmp_path, model_at(server), document_asks(12), seconds=0.9)
        assert server.ledger.batches == 1 and not _answered(tmp_path)
        answers, _, _ = run(tmp_path, model_at(server), document_asks(12), config=unlimited(), recover=True)
        # On a slow machine the first run sends only a part of them; the rest is sent by the second run, and nothing twice.
        assert len(answers) == 12 and sum(server.ledger.sold.values()) == 12 and server.bought_twice == 0


def _answered(folder: Path) -> int:
    with Store(folder) as store:
        return len(store)


def _run_for(folder: Path, model: Model, asks, seconds: float) -> None:
    with Store(folder) as store:
        models = {"generator": model, "grader": model}
        session = Session(store, SPEC, models, dict.fromkeys(models), Purse(None), unlimited(), {})

        async def main():
            await BatchJournal(folder, [model]).collect()
            with anyio.fail_after(seconds + 30):
                async with anyio.create_task_group() as group:
                    group.start_soon(session.answers, asks)
                    while not (folder / "batches.jsonl").exists():
                        await anyio.sleep(0.02)
                    group.cancel_scope.cancel()
            raise TimeoutError

        anyio.run(main)


def test_nothing_in_the_environment_is_changed():
    assert os.environ["ANTHROPIC_API_KEY"] == KEY
