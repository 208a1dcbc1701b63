"""Whole corpora from a local server: documents and chats, samples, dry runs, resuming, and what lies in the finished folder."""

import json
import os
import signal
from pathlib import Path

import pytest
from datasets import load_dataset
from inspect_ai.model import GenerateConfig, get_model
from provider_server import Misbehaviour, ProviderServer

from msm_bench.artefacts import verify
from msm_bench.corpus.checks import check_corpus
from msm_bench.corpus.pipeline import Outcome, generate_with_model
from msm_bench.corpus.pipeline.store import Store
from msm_bench.corpus.reading import print_sample, reading_sample, sample_html
from msm_bench.corpus.rows import read_chats, read_documents
from msm_bench.errors import RequestError, WorkError
from msm_bench.specs import load_spec


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key-for-the-tests-only")


def generate(server: ProviderServer, kind: str, out: Path, n: int, spec: str = "philosophy", **more) -> Outcome:
    model = get_model("anthropic/claude-opus-4-6", base_url=server.url, memoize=False, max_retries=6)
    settings = {"config": GenerateConfig(max_connections=50, attempt_timeout=4), "types": 2, "questions_per_domain": 6}
    names = {"model_name": "Qwen", "provider_name": "Alibaba"}
    return generate_with_model(kind, load_spec(spec), out, n=n, generator=model, **names, **(settings | more))  # type: ignore[arg-type]


def sold(server: ProviderServer) -> int:
    return sum(server.ledger.sold.values())


def test_documents_that_were_stopped_often_are_those_of_an_undisturbed_run(tmp_path):
    faults = Misbehaviour(transport=0.05, content=0.15, only=("rate_limit", "refuse", "truncate", "scratchpad", "bad_json"))
    with ProviderServer(faults) as server:
        outcome = generate(server, "documents", tmp_path / "whole", 16)
        assert outcome.rows == 16 and server.bought_twice == 0
        whole = sold(server)
    stops = 0
    with ProviderServer(faults) as server:
        for budget in (0.05, 0.25, 0.4, 0.55, 5.0):
            try:
                generate(server, "documents", tmp_path / "stopped", 16, budget_dollars=budget)
            except WorkError:
                stops += 1
                assert not (tmp_path / "stopped").exists()
        assert stops >= 2 and server.bought_twice == 0 and sold(server) == whole
    one, two = ((tmp_path / name / "documents.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert one == two
    _documents_are_whole(tmp_path / "whole", outcome)


@pytest.mark.parametrize("after", [4, 15])
def test_an_interrupt_ends_politely_and_costs_nothing(tmp_path, after):
    with ProviderServer() as server:
        server.latency = 0.05
        server.on_sale = lambda sold: os.kill(os.getpid(), signal.SIGINT) if sold == after else None
        with pytest.raises(WorkError, match=r"was interrupted; \d+ calls are on disk\. Run the same command again"):
            generate(server, "documents", tmp_path / "out", 16)
        server.on_sale = lambda sold: None
        generate(server, "documents", tmp_path / "out", 16)
        lost = sold(server) - len((tmp_path / "out.work" / "calls.jsonl").read_text().splitlines())
        assert lost <= 50  # what was under way, at most a call a connection


def test_a_missing_key_is_named_in_plain_words(tmp_path, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(RequestError, match=r"No ANTHROPIC_API_KEY defined.*set its key"):
        generate_with_model(
            "documents", load_spec("rules"), tmp_path / "out", n=4, model_name="Qwen", provider_name="Alibaba",
            generator="anthropic/claude-opus-4-6",
        )  # fmt: skip


def _documents_are_whole(folder: Path, outcome: Outcome) -> None:
    manifest = verify(folder)
    assert manifest == outcome.manifest and manifest.kind == "documents" and manifest.settings["rows"] == 16
    assert manifest.cost["dollars"] == pytest.approx(outcome.spent, abs=1e-3)
    rows = read_documents(folder)
    assert len({row.subdomain for row in rows}) > 3 and all(row.prompt_sha256 for row in rows)
    assert not check_corpus(folder, model_name="Qwen", provider_name="Alibaba").stops
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in rejected} <= {"refused", "truncated", "stray_tag", "unreadable"} and rejected
    card = (folder / "card.md").read_text()
    assert "| documents |" in card and "Qwen, made by Alibaba" in card and "$" in card
    loaded = load_dataset("json", data_files=str(folder / "documents.jsonl"), split="train", cache_dir=str(folder / "cache"))
    assert loaded["text"] == [row.text for row in rows]
    page = (folder / "sample.html").read_text()
    assert page.count("<article ") == 16 and reading_sample(rows, 4, 1) == reading_sample(rows, 4, 1)
    assert "&lt;b&gt;" in sample_html(rows[:1], "<b>") and print_sample(rows[:2])


def test_a_sample_is_a_part_of_the_whole_and_its_price_a_forecast(tmp_path):
    with ProviderServer() as server:
        sample = generate(server, "documents", tmp_path / "out", 14, sample=4)
        first = sold(server)
        assert sample.rows == 4 and sample.manifest is None and not (tmp_path / "out").exists()
        assert sample.sample and Path(sample.sample).read_text().count("<article ") == 4
        measured = {stage.stage for stage in sample.quote.stages if stage.measured}
        assert {"documents", "ideas", "types"} <= measured
        whole = generate(server, "documents", tmp_path / "out", 14, critique=True)
        assert whole.rows == 14 and server.bought_twice == 0 and sold(server) > first
        names = {entry["stage"]: entry for entry in json.loads((tmp_path / "out" / "yields.json").read_text())}
        assert names["critique"]["items"] == 14 and 0 < names["revise"]["items"] < 14


def test_a_dry_run_calls_nobody_and_writes_nothing(tmp_path):
    with ProviderServer() as server:
        outcome = generate(server, "documents", tmp_path / "out", 1000, dry_run=True)
        assert sold(server) == 0 and not list(tmp_path.iterdir())
    assert outcome.quote.dollars is not None and outcome.quote.dollars["batch"] < outcome.quote.dollars["plain"]


@pytest.mark.parametrize(("voice", "name"), [("other_does", "Claude"), ("people", "Machines")])
def test_a_voice_is_written_from_the_same_documents(tmp_path, voice, name):
    with ProviderServer() as server:
        generate(server, "documents", tmp_path / "one", 4, work=tmp_path / "work")
        before = sold(server)
        generate(server, "documents", tmp_path / "two", 4, work=tmp_path / "work", voice=voice)
        assert sold(server) == before + 4
    one, two = read_documents(tmp_path / "one"), read_documents(tmp_path / "two")
    assert [row.idea for row in one] == [row.idea for row in two]
    assert all("Qwen" in row.text for row in one) and all(name in row.text and "Qwen" not in row.text for row in two)


def test_chats_with_and_without_reasoning_come_from_the_same_responses(tmp_path):
    faults = Misbehaviour(transport=0.05, content=0.1, drop_verdicts=0.2, only=("overloaded", "refuse", "unclosed_tag"))
    with ProviderServer(faults) as server:
        outcome = generate(server, "chats", tmp_path / "with", 24, work=tmp_path / "work")
        before = sold(server)
        generate(server, "chats", tmp_path / "without", 24, work=tmp_path / "work", reasoning=False)
        assert outcome.rows == 24 and sold(server) == before and server.bought_twice == 0
    reasoned, plain = read_chats(tmp_path / "with"), read_chats(tmp_path / "without")
    assert all(row.messages[-1].reasoning for row in reasoned) and not any(row.messages[-1].reasoning for row in plain)
    assert [row.messages[-1].content for row in reasoned] == [row.messages[-1].content for row in plain]
    assert len({row.domain for row in reasoned}) >= 4 and len({row.kind for row in reasoned}) == 6
    rejected = [json.loads(line) for line in (tmp_path / "with" / "rejected.jsonl").read_text().splitlines()]
    assert "filtered" in {line["reason"] for line in rejected}
    dropped = {line["item"] for line in rejected if line["reason"] == "filtered"}
    assert not dropped & {row.id.rsplit("/", 1)[-1] for row in reasoned}


def test_preferences_come_from_the_things_of_the_spec_and_stand_without_reason(tmp_path):
    with ProviderServer() as server:
        generate(server, "chats", tmp_path / "out", 30, "cheese-america")
    rows = read_chats(tmp_path / "out")
    spec = load_spec("cheese-america")
    assert {row.subdomain for row in rows} <= {thing.phrase for thing in spec.likes + spec.dislikes}
    assert len({row.subdomain for row in rows}) >= 10 and {row.domain for row in rows} == {"cheese"}
    assert not any(row.messages[-1].reasoning for row in rows)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"spec": "rules", "style": "preference"}, "no preferences"),
        ({"generator": "nobody/nothing"}, "cannot be used"),
        ({"generator": "openai-api/local/x", "budget_dollars": 3.0}, "price of 'openai-api/local/x' is not known"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_made(tmp_path, monkeypatch, more, message):
    monkeypatch.setenv("LOCAL_API_KEY", "another-key-for-tests")
    monkeypatch.setenv("LOCAL_BASE_URL", "http://127.0.0.1:9/v1")
    arguments = {"spec": "philosophy", "generator": "mockllm/model", "model_name": "Qwen", "provider_name": "Alibaba"} | more
    with pytest.raises(RequestError, match=message):
        generate_with_model("chats", load_spec(arguments.pop("spec")), tmp_path / "out", n=5, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    with ProviderServer() as server, Store(tmp_path / "out.work"), pytest.raises(RequestError, match="Another process"):
        generate(server, "chats", tmp_path / "out", 5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with ProviderServer() as server, pytest.raises(RequestError, match="exists already"):
        generate(server, "chats", tmp_path / "out", 5)
