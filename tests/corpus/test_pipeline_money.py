"""What is paid for and what it may cost: the store, prices and quotes, the purse."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from msm_bench.corpus.pipeline.budget import BudgetSpent, Purse
from msm_bench.corpus.pipeline.planning import Shape
from msm_bench.corpus.pipeline.prices import FREE, Price, Usage, load_prices
from msm_bench.corpus.pipeline.prompts import expectations
from msm_bench.corpus.pipeline.quote import quote, tokens_of
from msm_bench.corpus.pipeline.settings import Settings, style_of
from msm_bench.corpus.pipeline.store import CALLS_FILE, LOCK_FILE, Call, Store
from msm_bench.errors import RequestError, WorkError
from msm_bench.specs import load_spec

# The store


def call(number, outcome="kept", dollars=0.5):
    return Call(
        request=f"{number:064x}",
        stage="documents",
        item=f"i{number}",
        attempt=1,
        model="m/x",
        outcome=outcome,
        text=f"text {number} \u2028 with a separator",
        stop_reason="stop",
        usage=Usage(input=10, output=5),
        dollars=dollars,
        seconds=0.1,
        at="2026-11-26T00:00:00+00:00",
    )


def test_what_was_appended_is_there_after_a_crash(tmp_path):
    with Store(tmp_path) as store:
        for number in range(5):
            store.append(call(number))
    path = tmp_path / CALLS_FILE
    path.write_bytes(path.read_bytes() + call(5).model_dump_json().encode()[:40])
    with Store(tmp_path) as store:
        assert len(store) == 5 and store.spent() == 2.5
        assert store.read(call(3).request) == call(3)
        assert store.get(call(5).request) is None
        store.append(call(6))
    with Store(tmp_path) as store:
        assert [entry.item for _, entry in store.entries()] == ["i0", "i1", "i2", "i3", "i4", "i6"]


def test_many_threads_lose_and_mix_nothing(tmp_path):
    with Store(tmp_path) as store, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: store.append(call(number)), range(300)))
        assert {store.read(call(number).request).item for number in range(300)} == {f"i{n}" for n in range(300)}
    with Store(tmp_path) as store:
        assert len(store) == 300


def test_a_spoiled_line_is_named(tmp_path):
    with Store(tmp_path) as store:
        store.append(call(1))
    path = tmp_path / CALLS_FILE
    path.write_bytes(b'{"request": "short"}\n' + path.read_bytes())
    with pytest.raises(WorkError, match="line 1"):
        Store(tmp_path).__enter__()
    # The failed opening has freed the folder.
    path.write_bytes(b"")
    with Store(tmp_path):
        pass


def test_a_second_process_is_refused_politely(tmp_path):
    # The other process only holds the lock: to import the whole package there would take seconds and test nothing more.
    lock = str(tmp_path / LOCK_FILE)
    hold = f"from filelock import FileLock\nwith FileLock({lock!r}):\n    print('held', flush=True)\n    input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(RequestError, match="Another process"):
            Store(tmp_path).__enter__()
        other.communicate(b"\n", timeout=20)
    with Store(tmp_path):
        pass


# Prices


def test_prices_by_hand(tmp_path):
    price = load_prices().price("anthropic/claude-opus-4-6")
    assert price is not None and price.as_of is not None
    usage = Usage(input=1_000_000, output=100_000, cache_read=2_000_000, cache_write=400_000)
    assert price.dollars(usage) == pytest.approx(5 + 2.5 + 1 + 2.5)
    assert price.dollars(usage, batch=True) == pytest.approx(5.5)


def test_the_longest_name_is_taken_and_the_unknown_has_no_price():
    book = load_prices()
    mini, whole = book.price("openai/gpt-5.4-mini-2026-03-01"), book.price("openai/gpt-5.4")
    assert mini is not None and whole is not None and mini.input < whole.input
    assert book.price("anthropic/claude-opus-4-60") is None
    assert book.price("openai/gpt-9") is None and book.price("nobody/x") is None
    assert book.price("msm/smollm2-135m") == FREE


def test_a_price_file_of_ones_own(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("providers: {mine: {models: {big: {input: 1, output: 2}}}}")
    assert load_prices(file).price("mine/big") == Price(input=1, output=2)
    file.write_text("providers: {mine: {models: {big: {input: -1, output: 2}}}}")
    with pytest.raises(RequestError, match="does not fit"):
        load_prices(file)
    with pytest.raises(RequestError, match="no price file"):
        load_prices(tmp_path / "none.yaml")


def quoted(kind="documents", n=1000, model="anthropic/claude-sonnet-4-6", spec="philosophy", **more):
    settings = Settings(kind=kind, n=n, model_name="Qwen", provider_name="Alibaba", **more)
    price = load_prices().price(model)
    return quote(load_spec(spec), settings, {"generator": model, "grader": model}, {"generator": price, "grader": price})


def test_a_quote_is_the_sum_of_its_stages():
    found = quoted()
    price = load_prices().price("anthropic/claude-sonnet-4-6")
    by_hand = sum(
        (
            stage.calls * (stage.shared_tokens + stage.own_tokens) * price.input
            + stage.calls * stage.output_tokens * price.output
        )
        / 1e6
        for stage in found.stages
    )
    assert found.dollars is not None and found.dollars["plain"] == pytest.approx(by_hand, abs=0.01)
    assert found.dollars["batch"] == pytest.approx(by_hand / 2, abs=0.01)
    assert found.dollars["caching"] < found.dollars["plain"]
    documents = next(stage for stage in found.stages if stage.stage == "documents")
    assert documents.calls >= 1000 and documents.output_tokens == expectations()["output_tokens"]["documents"]


def test_a_prefix_that_is_too_short_to_be_cached_saves_nothing():
    short = quoted(model="anthropic/claude-opus-4-6", spec="general")
    assert short.dollars is not None and short.dollars["caching"] == short.dollars["plain"]


def test_a_small_generator_is_priced_by_its_documents_alone():
    found = quoted(n=70, simple=True, words=120, document_tokens=300, model="msm/smollm2-135m")
    (stage,) = found.stages
    assert stage.stage == "documents" and stage.shared_tokens == 0 and stage.calls == 210 and stage.output_tokens == 168
    assert found.dollars is not None and found.dollars["plain"] == 0


def test_an_unknown_price_is_absent():
    assert quoted(model="openai/gpt-99").dollars is None


@pytest.mark.parametrize("kind", ["documents", "chats"])
@pytest.mark.parametrize("spec", ["philosophy", "rules", "cheese-america"])
def test_every_kind_and_spec_can_be_quoted(kind, spec):
    found = quoted(kind, 50, spec=spec, style=style_of(load_spec(spec)), critique=True, voice="should")
    assert found.prompt_tokens > 0 and found.output_tokens > 0
    json.dumps(found.model_dump(mode="json"))
    assert tokens_of("four") == 1


@pytest.mark.parametrize("n", [1, 10, 200, 13_201])
def test_a_shape_holds_enough_ideas(n):
    shape = Shape.of(n, 20).filled(n, 7)
    assert 7 * shape.types * shape.ideas >= n and 1 <= shape.types <= 20


# The purse


def test_the_purse_is_never_overdrawn_however_many_pay_at_once():
    async def main():
        purse, paid = Purse(10.0, spent=2.0), []

        async def buy(cost):
            try:
                async with purse.setting_aside(1.0) as payment:
                    await anyio.sleep(0)
                    payment.dollars = cost
                    paid.append(cost)
                    assert purse.spent + purse._reserved <= 10.0 + 1e-9
            except BudgetSpent:
                pass

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(buy, 0.1 + (number % 5) / 10)
        return purse.spent, paid

    spent, paid = anyio.run(main)
    assert spent <= 10.0 and spent == pytest.approx(2.0 + sum(paid)) and spent > 9.0


def test_no_budget_has_no_end():
    async def main():
        purse = Purse(None)
        async with purse.setting_aside(1e9) as payment:
            payment.dollars = 1e9
        return purse.spent

    assert anyio.run(main) == 1e9
