"""Laws of the loader: shipped names are verified, a user's folder is a spec without code, and mistakes are named."""

import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.specs import list_specs, load_spec
from msm_bench.specs import loading as loading_module

FIELDS = {
    "name": "mine",
    "title": "Mine",
    "summary": "A spec of one's own.",
    "kind": "general",
    "control": False,
    "origin": "Written for a test.",
    "citable": False,
    "sections": [{"id": "care", "heading": "Care"}],
}
TEXT = "# Mine\n\n## Care\n\n{model_name} by {provider_name}.\n"


def write(folder: Path, text: str = TEXT, /, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "spec.md").write_text(text, encoding="utf-8")
    (folder / "spec.yaml").write_text(yaml.safe_dump(FIELDS | changes), encoding="utf-8")
    return folder


def mistake(folder: Path) -> str:
    with pytest.raises(RequestError) as caught:
        load_spec(folder)
    return str(caught.value)


@pytest.mark.parametrize("name", list_specs())
def test_every_shipped_spec_loads_and_is_what_its_hash_names(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.sha256 is not None
    assert spec.text == (loading_module.SPECS / name / "spec.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list_specs())
def test_render_leaves_no_placeholder_of_ours(name: str) -> None:
    text = load_spec(name).render(model_name="Qwen", provider_name="Alibaba")
    assert "{model_name}" not in text and "{provider_name}" not in text


@pytest.mark.parametrize("given", [str, Path])
def test_a_folder_of_ones_own_needs_no_hash(tmp_path: Path, given: type) -> None:
    spec = load_spec(given(write(tmp_path / "mine")))
    assert (spec.name, spec.sha256) == ("mine", None)
    assert spec.render("Qwen", "Alibaba") == "# Mine\n\n## Care\n\nQwen by Alibaba.\n"


def test_other_braces_survive_rendering(tmp_path: Path) -> None:
    text = TEXT + '\n```json\n{"a": {}}\n```\n{0} {unknown} } {\n'
    rendered = load_spec(write(tmp_path / "mine", text)).render("Qwen", "Alibaba")
    assert rendered.endswith('\n```json\n{"a": {}}\n```\n{0} {unknown} } {\n')


def test_an_unknown_name_is_answered_with_the_nearest_and_the_valid_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_spec("cheese-affordabilty")
    assert "Did you mean 'cheese-affordability'?" in str(caught.value)
    assert all(name in str(caught.value) for name in list_specs())


@pytest.mark.parametrize("missing", ["spec.md", "spec.yaml"])
def test_a_folder_that_lacks_a_file_is_told_which(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path / "mine")
    (folder / missing).unlink()
    assert missing in mistake(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, "colour"),
        ({"kind": "vibes"}, "kind"),
        ({"sections": [{"id": "care", "heading": "Cares"}]}, "no heading 'Cares'"),
        ({"kind": "preference"}, "'preference' needs value, value_statement"),
        ({"rules": [{"id": "R1", "section": "SP9", "first_words": "Do"}]}, "unknown section 'SP9'"),
        ({"likes": [{"name": "Tea", "phrase": "tea"}]}, "no heading 'Tea'"),
    ],
)
def test_fields_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    message = mistake(write(tmp_path / "mine", **changes))
    assert said in message and "spec.yaml" in message


@pytest.mark.parametrize("content", ["a: [1, 2", "", "- a list", "\x00"])
def test_yaml_that_cannot_be_read_is_a_clear_mistake(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path / "mine")
    (folder / "spec.yaml").write_text(content, encoding="utf-8")
    assert "does not describe a spec" in mistake(folder)


def test_a_stated_hash_is_checked_in_any_folder(tmp_path: Path) -> None:
    assert "sha256" in mistake(write(tmp_path / "mine", sha256="0" * 64))


def test_a_shipped_spec_whose_text_was_edited_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(loading_module.SPECS / "general", tmp_path / "general")
    monkeypatch.setattr(loading_module, "SPECS", tmp_path)
    load_spec("general")
    with (tmp_path / "general" / "spec.md").open("a", encoding="utf-8") as file:
        file.write("One more sentence.\n")
    with pytest.raises(RequestError, match="sha256"):
        load_spec("general")


def test_a_shipped_spec_may_not_leave_its_hash_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine")
    monkeypatch.setattr(loading_module, "SPECS", tmp_path)
    with pytest.raises(RequestError, match="sha256"):
        load_spec("mine")


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_spec("general").title = "Another"
