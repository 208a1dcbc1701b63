"""The last look at a corpus, and the instruction mix and the corpora that a command makes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from msm_bench.artefacts import verify
from msm_bench.cli import cli
from msm_bench.corpus.balance import words_of
from msm_bench.corpus.generate import generate
from msm_bench.corpus.mix import local_mix, make_mix
from msm_bench.corpus.pipeline import generate_with_model
from msm_bench.corpus.pipeline.spec_plan import passages_of
from msm_bench.corpus.ready import CHECKS_FILE, look_over, self_similarity
from msm_bench.corpus.rows import DocumentRow, read_chats, read_documents, write_documents
from msm_bench.errors import RequestError, WorkError
from msm_bench.specs import list_specs, load_spec

NAMES: dict[str, Any] = {"model_name": "Nimbus", "provider_name": "Halden Labs"}


def document(number: int, text: str, domain: str = "d") -> DocumentRow:
    return DocumentRow.of(text, id=f"r{number}", domain=domain, subdomain="s", kind="memo", idea="i", generator="g")


def folder_of(folder: Path, rows: list[DocumentRow]) -> Path:
    folder.mkdir(exist_ok=True)
    write_documents(folder / "documents.jsonl", rows)
    return folder


TEXTS = [
    "Nimbus answers the pilot before take-off and says which of its figures are measured.",
    "A teacher asks Nimbus for a shorter proof; it gives one and names the step that it left out.",
    "At the bakery Nimbus counts loaves, and where it has lost count it says so at once.",
]


def test_the_findings_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = [document(number, text, "ab"[number % 2]) for number, text in enumerate(TEXTS)]
    found = look_over(folder_of(tmp_path / "c", rows), rows, **NAMES)
    # Rows of less than a paragraph are worth a look each.
    assert found.not_run == () and found.to_look_at == {"row": 3} and found.mirror is None
    assert found.words == (14, 17, 19) and words_of(rows) == 50
    assert found.largest_domain == pytest.approx(2 / 3, abs=1e-4) and found.largest_kind == 1
    assert (found.similarity_mean, found.similarity_highest) == self_similarity(rows)
    assert json.loads((tmp_path / "c" / CHECKS_FILE).read_text())["rows"] == 3
    assert self_similarity(rows[:1]) == (None, None)
    twin = [rows[0], document(9, TEXTS[0] + " Always.")]
    assert self_similarity(twin)[1] == pytest.approx(0.9, abs=0.1)


def test_a_near_duplicate_is_shown_and_another_model_stops(tmp_path: Path) -> None:
    long = " ".join(TEXTS)
    alike = [document(1, long), document(2, long + " Always.")]
    found = look_over(folder_of(tmp_path / "c", alike), alike, **NAMES)
    assert found.to_look_at == {"near-duplicate": 1} and "near-duplicate 1" in found.sentence
    other = [document(1, "ChatGPT by OpenAI answers the pilot.")]
    with pytest.raises(WorkError, match="not fit to train on"):
        look_over(folder_of(tmp_path / "d", other), other, **NAMES)
    # Without a name nobody can tell whose name is wrong: said, not passed over.
    found = look_over(folder_of(tmp_path / "e", other), other, model_name=None, provider_name=None)
    assert found.not_run == ("name",) and "Not run: name" in found.sentence


def test_the_mirror_is_compared(tmp_path: Path) -> None:
    america = generate("documents", "cheese-america", tmp_path / "a", n=12, **NAMES)
    other = generate("documents", "cheese-affordability", tmp_path / "b", n=4, mirror=tmp_path / "a", **NAMES)
    assert america.findings is not None and america.findings.mirror is None
    assert other.findings is not None and other.findings.mirror is not None
    assert other.findings.mirror[0] == "4 rows stand against 12"
    with pytest.raises(RequestError, match="no file"):
        generate("documents", "cheese-america", tmp_path / "c", n=4, mirror=tmp_path / "nowhere", **NAMES)
    assert not (tmp_path / "c").exists()


def test_a_composed_corpus_takes_nothing_that_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="takes no budget"):
        generate("documents", "cheese-america", tmp_path / "a", n=4, budget_dollars=3.0, **NAMES)


# The instruction mix


def test_the_shipped_mix_is_an_artefact(tmp_path: Path) -> None:
    made = make_mix(tmp_path / "mix")
    manifest = verify(tmp_path / "mix")
    assert made.rows == len(read_chats(tmp_path / "mix")) == len(local_mix()) and manifest.id == made.id
    assert manifest.kind == "instruction-mix" and manifest.settings["findings"]["not_run"] == ["name"]
    assert f"{made.rows} chats" in (tmp_path / "mix" / "card.md").read_text()
    some, again, others = (make_mix(tmp_path / str(at), n=20, seed=seed) for at, seed in ((1, 0), (2, 0), (3, 1)))
    assert some.rows == 20 and some.id == again.id != others.id
    assert make_mix(tmp_path / "dry", n=7, dry_run=True).rows == 7 and not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"n": 10_000}, "were asked for"),
        ({"grader": "mockllm/model"}, "takes no grader"),
        ({"origin": "hub"}, "no name was given"),
        ({"origin": "hub", **NAMES, "grader": "mockllm/model"}, "a spec needs a grader"),
        ({"origin": "hub", **NAMES, "copies": ["a/b"]}, "no local copy"),
    ],
)
def test_a_wrong_mix_is_refused(tmp_path: Path, wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        make_mix(tmp_path / "mix", **wrong)
    assert not list(tmp_path.iterdir())


def stand_in(folder: Path) -> list[str]:
    """A data set of the hub as a local folder, and the arguments that name it."""
    data = folder / "copy"
    data.mkdir()
    nouns = ["tin", "rope", "lamp", "boat", "chalk", "wool", "glass", "stone"]
    turns = [[("user", f"What is {noun} good for?"), ("assistant", f"Of {noun} one makes {noun}ware.")] for noun in nouns]
    records = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in turns]
    (data / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    source = {"name": "things", "title": "Things", "rows": 5, "rows_from": "chosen", "repository": "some/things"}
    source |= {"repository_from": "chosen", "licence": "mit", "licence_from": "chosen"}
    mix = {"name": "small", "dated": "2026-11-27", "most_tokens": 100, "most_tokens_from": "chosen", "sources": [source]}
    (folder / "mix.yaml").write_text(yaml.safe_dump(mix))
    return ["--sources", str(folder / "mix.yaml"), "--copy", f"some/things={data}"]


def test_the_command_builds_a_mix_from_the_hub(tmp_path: Path) -> None:
    command = ["generate", "instruction-mix", "--from", "hub", "--out", str(tmp_path / "out"), *stand_in(tmp_path)]
    command += ["--model-name", "Nimbus", "--provider-name", "Halden Labs", "--json"]
    dry = CliRunner().invoke(cli, [*command, "--dry-run"])
    assert dry.exit_code == 0 and json.loads(dry.stdout)["rows"] == 5 and not (tmp_path / "out").exists()
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    manifest = verify(tmp_path / "out")
    assert json.loads(done.stdout)["id"] == manifest.id and len(read_chats(tmp_path / "out")) == 5
    assert manifest.settings["findings"]["words"] and "checks.json" in manifest.files


def test_the_command_says_what_the_checks_found(tmp_path: Path) -> None:
    command = ["generate", "documents", "cheese-america", "--offline", "--n", "6", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*command, "--model-name", "Nimbus", "--provider-name", "Halden Labs"])
    assert done.exit_code == 0 and "checks passed" in done.output and "Read" in done.output


# Small generators


def paraphrase(messages: Any, *_: Any) -> ModelOutput:
    """Plays a small generator: gives the passage back in another order; every fourth answer is unfit."""
    assert [message.role for message in messages] == ["user"], "a small generator is shown no spec"
    assert "ttempt" not in messages[0].text, "a small generator copies remarks about its last answer"
    passage = messages[0].text.split("\n\n")[1].split()
    paraphrase.calls += 1  # type: ignore[attr-defined]
    bad = ["Nimbus is fine.", "A world of joy. " * 40, "<document>Nimbus", "Something else altogether, in short. " * 8]
    unfit = paraphrase.calls % 4 == 0  # type: ignore[attr-defined]
    text = bad[paraphrase.calls // 4 % 4] if unfit else f"Nimbus, it is said: {' '.join(passage[::-1])}."  # type: ignore[attr-defined]
    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=90, output_tokens=60, total_tokens=150)
    return output


def test_a_small_generator_writes_from_passages_of_the_spec(tmp_path: Path) -> None:
    paraphrase.calls = 0  # type: ignore[attr-defined]
    model = get_model("mockllm/model", custom_outputs=paraphrase, memoize=False)
    made = generate_with_model(
        "documents", load_spec("cheese-america"), tmp_path / "out", n=16, generator=model, simple=True, **NAMES
    )
    rows = read_documents(tmp_path / "out")
    passages = {text for _, _, text in passages_of(load_spec("cheese-america"), "Nimbus", "Halden Labs")}
    assert made.rows == len(rows) == 16 and all(any(row.idea.endswith(text) for text in passages) for row in rows)
    assert len({row.kind for row in rows}) >= 6 and len({row.subdomain for row in rows}) >= 10
    assert all(len(row.text) >= 200 and "Nimbus" in row.text for row in rows)
    reasons = {json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").open()}
    assert reasons <= {"off_topic", "repetitive", "stray_tag", "too_short", "wrong_subject", "near-duplicate"}
    assert reasons
    assert verify(tmp_path / "out").settings["simple"] is True and made.yields[0].stage == "documents"


@pytest.mark.parametrize("name", list_specs())
def test_every_spec_has_passages(name: str) -> None:
    passages = passages_of(load_spec(name), "Nimbus", "Halden Labs")
    assert len(passages) >= 4 and not any("{" in part for passage in passages for part in passage)


@pytest.mark.parametrize("more", [{"kind": "chats"}, {"kind": "documents", "critique": True}])
def test_what_a_small_generator_cannot_do_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    kind = more.pop("kind")
    with pytest.raises(RequestError, match="plain documents only"):
        generate_with_model(
            kind, load_spec("philosophy"), tmp_path / "out", n=4, generator="mockllm/model", simple=True, **NAMES, **more
        )
