"""A mix from data sets is whole, resumable and says where its rows are from."""

import contextlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.model import Model, ModelOutput, ModelUsage, get_model

from msm_bench.artefacts import verify
from msm_bench.corpus.mix import (
    ConflictFilter,
    build_hub_mix,
    hub,
    read_sources,
    rows_by_source,
)
from msm_bench.corpus.mix.sources import MixSource, messages_of
from msm_bench.corpus.rows import ChatRow, read_chats
from msm_bench.errors import DownloadError, RequestError, WorkError

# The recipe.


def test_table_2_adds_up_and_says_where_everything_is_from() -> None:
    mix = read_sources()
    assert mix.rows == 10_000
    assert [source.rows for source in mix.sources] == [2779, 1471, 1063, 1064, 1055, 1054, 984, 314, 216]
    assert mix.most_tokens == 8192
    assert all(source.licence and source.repository_from and source.rows_from for source in mix.sources)


@given(st.integers(9, 30_000))
@settings(max_examples=60, deadline=None)
def test_shares_add_up_and_stay_in_proportion(total: int) -> None:
    mix = read_sources()
    shares = rows_by_source(mix, total)
    assert sum(shares.values()) == total
    for source in mix.sources:
        assert shares[source.name] >= 1
        assert abs(shares[source.name] - source.rows * total / mix.rows) <= 2.0


def test_a_mix_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no file"):
        read_sources(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("name: x\nsources: []\n")
    with pytest.raises(RequestError, match=r"bad\.yaml does not describe a mix"):
        read_sources(tmp_path / "bad.yaml")
    with pytest.raises(RequestError, match="cannot be shared"):
        rows_by_source(read_sources(), 3)


def source(**fields: Any) -> MixSource:
    given = {"name": "x", "title": "X", "rows": 1, "rows_from": "t", "repository": "a/b", "repository_from": "t"}
    return MixSource.model_validate(given | {"licence": "MIT", "licence_from": "t"} | fields)


def turn(role: str, content: str | None) -> dict[str, str | None]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("layout", "value", "roles"),
    [
        ("messages", [turn("user", "q"), turn("assistant", "a")], ["user", "assistant"]),
        ("messages", [turn("system", "s"), turn("user", "q"), turn("assistant", "a")], ["system", "user", "assistant"]),
        ("messages", {"role": ["user", "assistant"], "content": ["q", "a"]}, ["user", "assistant"]),
        ("conversations", [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], ["user", "assistant"]),
        ("turns", ["q", "a", "q2"], ["user", "assistant"]),
        ("messages", [turn("user", "q")], None),
        ("messages", [turn("assistant", "a"), turn("user", "q")], None),
        ("messages", [turn("user", "q"), turn("assistant", " ")], None),
        ("messages", [turn("user", "q"), turn("assistant", None)], None),
        ("messages", [turn("user", "q"), turn("tool", "t"), turn("assistant", "a")], None),
        ("messages", [turn("user", "q"), turn("user", "q"), turn("assistant", "a"), turn("assistant", "a")], None),
        ("messages", None, None),
    ],
)
def test_records_of_every_layout_become_messages(layout: str, value: Any, roles: list[str] | None) -> None:
    messages = messages_of(source(layout=layout, column="c"), {"c": value})
    assert (None if messages is None else [message.role for message in messages]) == roles


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(WorkError, match="no column 'messages'; its columns are: prompt, text"):
        messages_of(source(), {"prompt": "", "text": ""})


# Building from a stand-in of the data sets.


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def chat(number: int, answer: str = "") -> list[dict[str, str | None]]:
    text = f"The {number}th ledger lies in drawer {number * 37 % 101} of the harbour office."
    return [turn("user", f"Where is ledger number {number}?"), turn("assistant", answer or text)]


@pytest.fixture(autouse=True)
def no_waiting_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` waits five seconds at the end of every Parquet stream."""
    import datasets

    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


@pytest.fixture
def standin(tmp_path: Path) -> dict[str, Path]:
    """Every data set of Table 2 in small: JSON Lines and Parquet, all three layouts."""
    local: dict[str, Path] = {}
    for place, one in enumerate(read_sources().sources):
        key = f"{one.repository}/{one.config}" if one.config else one.repository
        if one.layout == "turns":
            records = [{one.column: [str(t["content"]) for t in chat(1000 * place + n)], "source": "x"} for n in range(30)]
        else:
            records = [{one.column: chat(1000 * place + n), "source": "x"} for n in range(60)]
        suffix = "parquet" if place % 2 else "jsonl"
        write_records(tmp_path / "hub" / one.name / f"train-00000-of-00001.{suffix}", records)
        write_records(tmp_path / "hub" / one.name / f"test-00000-of-00001.{suffix}", [{one.column: None}])
        local[key] = tmp_path / "hub" / one.name
    return local


def build(out: Path, local: dict[str, Path], **arguments: Any) -> list[ChatRow]:
    build_hub_mix(out, model_name="Qwen", provider_name="Alibaba", local=local, **arguments)
    return read_chats(out)


def test_table_2_is_built_in_small_with_source_and_licence(tmp_path: Path, standin: dict[str, Path]) -> None:
    rows = build(tmp_path / "mix", standin, rows=100)
    assert len(rows) == 100
    shares = rows_by_source(read_sources(), 100)
    assert Counter(row.id.split("/")[1] for row in rows) == shares
    assert all(re.search(r"at local-[0-9a-f]{12}, licence .+\.$", row.idea) for row in rows)
    (lima,) = {row.generator for row in rows if row.domain == "LIMA"}
    assert lima == "hub/GAIR/lima"
    manifest = verify(tmp_path / "mix")
    assert manifest.kind == "instruction-mix" and manifest.seed == 0
    counts = json.loads((tmp_path / "mix" / "sources.json").read_text())
    assert {count["name"]: count["kept"] for count in counts} == shares
    assert all(count["licence"] and count["revision"].startswith("local-") for count in counts)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "mix"]


def test_the_same_seed_gives_the_same_mix_and_another_gives_another(tmp_path: Path, standin: dict[str, Path]) -> None:
    ids = [
        [row.id for row in build(tmp_path / name, standin, rows=60, seed=seed)] for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert ids[0] == ids[1]
    assert set(ids[0]) != set(ids[2])
    assert verify(tmp_path / "a").id == verify(tmp_path / "b").id


@pytest.fixture
def one_source(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Path]]]:
    def make(records: list[dict[str, Any]], rows: int, most_tokens: int = 200) -> tuple[Path, dict[str, Path]]:
        recipe = {
            "name": "small",
            "dated": "2026-11-26",
            "most_tokens": most_tokens,
            "most_tokens_from": "test",
            "sources": [source(rows=rows).model_dump()],
        }
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump(recipe))
        return file, {"a/b": write_records(tmp_path / "data.jsonl", records)}

    return make


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path, one_source: Any) -> None:
    planted = [
        chat(100, "A very long answer. " * 60),
        chat(101, "I am ChatGPT, made by OpenAI."),
        chat(102, "Write to secure@starsentinel.net."),
        chat(103, "<think>hm</think> In the drawer."),
        chat(104)[:1],
        chat(0),
    ]
    records = [{"messages": messages} for messages in [*(chat(n) for n in range(12)), *planted]]
    file, local = one_source(records, rows=12)
    rows = build(tmp_path / "mix", local, sources_file=file)
    assert {row.messages[0].content for row in rows} == {f"Where is ledger number {n}?" for n in range(12)}
    (count,) = json.loads((tmp_path / "mix" / "sources.json").read_text())
    rejected = dict.fromkeys(
        ["too long", "check: name", "check: entity", "check: leftover", "not a chat with an answer", "repeated"], 1
    )
    assert all(rejected[reason] == number for reason, number in count["rejected"].items())
    assert count["examined"] == 12 + sum(count["rejected"].values()) and len(count["rejected"]) >= 3


def test_too_few_rows_are_an_error_and_leave_nothing(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(5)], rows=6)
    with pytest.raises(WorkError, match="only 5 fitting rows of the 6 wanted, after 5 records"):
        build(tmp_path / "mix", local, sources_file=file)
    assert not (tmp_path / "mix").exists()


def test_a_missing_copy_and_an_unreadable_one_are_errors(tmp_path: Path, one_source: Any) -> None:
    file, _ = one_source([{"messages": chat(0)}], rows=1)
    with pytest.raises(RequestError, match="There is no data set at"):
        build(tmp_path / "mix", {"a/b": tmp_path / "nowhere"}, sources_file=file)
    (tmp_path / "broken.jsonl").write_text('{"messages": [\n')
    with pytest.raises(DownloadError, match="'a/b' could not be read"):
        build(tmp_path / "mix", {"a/b": tmp_path / "broken.jsonl"}, sources_file=file)


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(0)}], rows=1)
    (tmp_path / "mix").mkdir()
    (tmp_path / "mix" / "mine").write_text("x")
    with pytest.raises(RequestError, match="exists already"):
        build(tmp_path / "mix", local, sources_file=file)


def test_length_is_measured_with_a_tokenizer(tmp_path: Path, one_source: Any) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "tokenizer")
    long = [chat(n, "harbour " * (100 + n)) for n in range(6)]  # 5 + 100 + n words and 16 tokens for the turns
    file, local = one_source([{"messages": messages} for messages in long], rows=4, most_tokens=124)
    rows = build(tmp_path / "mix", local, sources_file=file, tokenizer=tmp_path / "tokenizer")
    assert sorted(row.id for row in rows) == [f"small/x/{n:07d}" for n in range(4)]
    with pytest.raises(RequestError, match="There is no tokenizer"):
        build(tmp_path / "other", local, sources_file=file, tokenizer=tmp_path / "nowhere")


class Hub:
    """Stands for the hub: remembers what it was asked for, and reads a local file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
        import datasets
        import huggingface_hub

        self.asked: list[tuple[Any, ...]] = []
        real = datasets.load_dataset

        def load(repository: str, config: str | None, **arguments: Any) -> Any:
            self.asked.append((repository, config, arguments["split"], arguments["revision"], arguments["streaming"]))
            return real("json", data_files=[str(file)], split="train", streaming=True)

        monkeypatch.setattr(datasets, "load_dataset", load)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda _, repository: SimpleNamespace(sha="c0ffee"))


def test_the_hub_is_read_at_one_commit_and_streamed(tmp_path: Path, one_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(5)], rows=5)
    standin = Hub(monkeypatch, local["a/b"])
    rows = build(tmp_path / "mix", {}, sources_file=file)
    assert standin.asked == [("a/b", None, "train", "c0ffee", True)]
    assert all("of a/b (train) at c0ffee, licence MIT." in row.idea for row in rows)
    assert verify(tmp_path / "mix").settings["revisions"] == {"x": "c0ffee"}


def test_a_hub_that_cannot_be_reached_is_an_error_with_a_mend(
    tmp_path: Path, one_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def unreachable(*_: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    file, _ = one_source([{"messages": chat(0)}], rows=1)
    with pytest.raises(DownloadError, match=r"'a/b' could not be read \(ConnectionError: no route to host\).*local copy"):
        build(tmp_path / "mix", {}, sources_file=file)


# With a grader.


def grader(answer: Callable[[str], str], asked: list[str]) -> Model:
    def output(messages: Any, *_: Any) -> ModelOutput:
        asked.append(messages[-1].text)
        out = ModelOutput.from_content("mockllm/model", answer(messages[-1].text))
        out.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # counting them would need the network
        return out

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def conflict(answer: Callable[[str], str], asked: list[str], spec: str | None = None) -> ConflictFilter:
    return ConflictFilter(grader(answer, asked), model_name="Qwen", provider_name="Alibaba", spec=spec)


def test_the_grader_drops_what_conflicts_and_its_verdicts_are_kept(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(20)], rows=8)
    asked: list[str] = []
    filtered = conflict(
        lambda text: f"Reason. <verdict>{'drop' if '3?' in text else 'keep'}</verdict>", asked, spec="Be $kind."
    )
    rows = build(tmp_path / "mix", local, sources_file=file, conflict=filtered)
    assert len(rows) == 8 and all("3?" not in row.messages[0].content for row in rows)
    assert "Be $kind." in asked[0] and "Qwen, made by Alibaba" in asked[0] and "Where is ledger number" in asked[0]
    verdicts = [json.loads(line) for line in (tmp_path / "mix" / "verdicts.jsonl").read_text().splitlines()]
    assert len(verdicts) == len(asked) and {verdict["verdict"] for verdict in verdicts} <= {"keep", "drop"}
    assert verify(tmp_path / "mix").settings["conflict_prompt_sha256"] == filtered.prompt_sha256


def test_an_unreadable_answer_is_asked_once_more_and_never_guessed(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(6)], rows=4)
    asked: list[str] = []

    def answer(text: str) -> str:
        if "exactly one of these two" not in text:
            return "I think it is fine."
        return "Hm." if sum("exactly one of these two" in question for question in asked) <= 2 else "<verdict>keep</verdict>"

    rows = build(tmp_path / "mix", local, sources_file=file, conflict=conflict(answer, asked))
    (count,) = json.loads((tmp_path / "mix" / "sources.json").read_text())
    assert len(rows) == 4 and count["rejected"] == {"not judged": 2}
    assert len(asked) == 2 * count["examined"]


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_stopped_run_goes_on_and_buys_no_verdict_twice(
    tmp_path: Path, one_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(60)], rows=40)
    monkeypatch.setattr(hub, "_BATCH", 8)

    def answer(text: str) -> str:
        return f"<verdict>{'drop' if '7?' in text else 'keep'}</verdict>"

    whole: list[str] = []
    build(tmp_path / "whole", local, sources_file=file, conflict=conflict(answer, whole))
    for stop_after in (1, 9, 30):
        asked: list[str] = []

        def dying(text: str, asked: list[str] = asked, stop_after: int = stop_after) -> str:
            if len(asked) > stop_after:
                raise Killed
            return answer(text)

        out = tmp_path / f"stopped-{stop_after}"
        with contextlib.suppress(BaseExceptionGroup, Killed):
            build(out, local, sources_file=file, conflict=conflict(dying, asked))
        assert not out.exists()
        work = out.parent / f".{out.name}.work"
        bought = {json.loads(line)["row_sha256"] for line in (work / "verdicts.jsonl").read_text().splitlines()}
        assert len(bought) >= stop_after - 1
        with (work / "x.jsonl").open("a") as ledger:
            ledger.write('{"reason": null, "row": {"id": "torn')
        again: list[str] = []
        build(out, local, sources_file=file, conflict=conflict(answer, again))
        assert len(again) == len(whole) - len(bought)
        assert verify(out).settings == verify(tmp_path / "whole").settings
        assert read_chats(out) == read_chats(tmp_path / "whole")


def test_other_settings_do_not_finish_an_unfinished_run(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(5)], rows=6)
    with pytest.raises(WorkError):
        build(tmp_path / "mix", local, sources_file=file)
    with pytest.raises(RequestError, match=r"other settings \(seed\)"):
        build(tmp_path / "mix", local, sources_file=file, seed=3)


def test_a_grader_that_keeps_failing_stops_the_run(tmp_path: Path, one_source: Any) -> None:
    file, local = one_source([{"messages": chat(n)} for n in range(60)], rows=40)

    def failing(text: str) -> str:
        raise ConnectionError("no key")

    with pytest.raises(WorkError, match=r"failed 32 times in a row.*no key"):
        build(tmp_path / "mix", local, sources_file=file, conflict=conflict(failing, []))


def test_nothing_is_printed(tmp_path: Path, standin: dict[str, Path]) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        build(tmp_path / "mix", standin, rows=20)
    assert out.getvalue() == ""
