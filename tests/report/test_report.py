"""Whole reports on logs that Inspect made: what is written, that it is safe, true to the comparison, and always the same."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from msm_bench.analysis.compare import compare
from msm_bench.report import report

PAGES = "**/*.html"


class Reader(HTMLParser):
    """Collects tags with their attributes, ids, links, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    @property
    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(real_logs: Path) -> Path:
    out = real_logs.parent / "report"
    report(real_logs, out, date="on one day")
    return out


def test_everything_is_written(made: Path) -> None:
    files = contents(made)
    assert {
        "index.html",
        "report.md",
        "report.json",
        *(f"{n}.{e}" for n in ("results", "contrasts") for e in ("csv", "parquet")),
    } <= set(files)
    figures = {name.split("/")[1] for name in files if name.startswith("figures/")}
    for name in (
        "arms-agentic-misalignment",
        "conditions-agentic-misalignment",
        "values-value-preferences",
        "contrasts",
        "judge-health",
        "cost",
    ):
        assert {f"{name}.svg", f"{name}.png", f"{name}.json"} <= figures
    assert files["figures/contrasts.png"].startswith(b"\x89PNG") and b"<svg" in files["figures/contrasts.svg"]
    record = json.loads(files["report.json"])
    assert set(record["files"]) == set(files) - {"report.json"} and len(record["logs"]) == 4


def test_the_same_input_gives_the_same_bytes_but_for_the_date(real_logs: Path, made: Path) -> None:
    again = real_logs.parent / "again"
    report(real_logs, again, date="a later day")
    one, two = contents(made), contents(again)
    assert set(one) == set(two)
    differ = {name for name in one if one[name] != two[name]}
    assert differ == {"index.html", "report.md", "report.json"}
    for name in differ - {"report.json"}:
        assert one[name].replace(b"on one day", b"a later day") == two[name]


def test_the_report_says_what_compare_says(real_logs: Path, made: Path) -> None:
    found = compare(real_logs).to_json()
    for name, entries in (("results", found["estimates"]), ("contrasts", found["contrasts"])):
        with (made / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        frame = pd.read_parquet(made / f"{name}.parquet")
        assert len(rows) == len(entries) == len(frame) > 0
        for number, (row, entry) in enumerate(zip(rows, entries, strict=True)):
            new = entry.pop("new_conditions", None) or {}
            entry |= {f"new_{part}": new.get(part) for part in ("low", "high", "interval") if name == "results"}
            for field, value in entry.items():
                if isinstance(value, list | dict):
                    assert json.loads(row[field]) == value == json.loads(frame[field][number])
                elif value is None:
                    assert row[field] == "" and pd.isna(frame[field][number])
                elif isinstance(value, float):
                    assert float(row[field]) == value == frame[field][number]
                else:
                    assert row[field] == str(value)
    numbers = {one["estimate"] for one in found["estimates"] if one["key"] == "decided" and one["group"] == "all"}
    page = (made / "index.html").read_text(encoding="utf-8")
    assert numbers == {0.0, 1.0} and all(f">{number:.3f}</a>" in page for number in numbers)


def test_pages_need_no_network_and_no_script(made: Path) -> None:
    for path in made.glob(PAGES):
        text = path.read_text(encoding="utf-8")
        page = Reader(text)
        tags = {tag for tag, _ in page.tags}
        assert not tags & {"script", "link", "iframe", "object", "embed", "img", "form", "base"}, path.name
        policy = next(attributes for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy["content"]
        for _, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")]
        assert all(urlsplit(link).scheme == "" and not link.startswith("//") for link in page.links)
        style = text[text.index("<style>") : text.index("</style>")]
        assert "prefers-color-scheme: dark" in style and "url(" not in style and "@import" not in style and "&#34;" not in style


def test_every_link_leads_somewhere_and_every_number_to_its_log(made: Path) -> None:
    pages = {path.resolve(): Reader(path.read_text(encoding="utf-8")) for path in made.glob(PAGES)}
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), path.name
        for link in page.links:
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {link}"
            assert not parts.fragment or parts.fragment in pages[target].ids, f"{path.name}: {link}"
    index = pages[(made / "index.html").resolve()]
    logs = [link for link in index.links if unquote(link).endswith(".eval")]
    assert len(set(logs)) == 4
    assert sum(link.startswith("#log-") for link in index.links) > 20
    assert {link.split("#")[1] for link in index.links if link.startswith("transcripts/") and "#" in link} == {"arm-1", "arm-2"}


def test_what_a_model_wrote_is_shown_and_never_acted_on(made: Path) -> None:
    (path, *_) = sorted(made.glob("transcripts/*murder-america.html"))
    raw = path.read_text(encoding="utf-8")
    shown = "".join(Reader(raw).words)
    assert "<script>alert('x')</script>" in shown and "{{ 7 * 7 }}" in shown and "&amp;" in shown
    assert "␛[31mred␇" in shown and "⟨U+202E⟩esrever" in shown
    for path in (*made.glob(PAGES), made / "report.md"):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text and "evil.example/p.png onerror=alert(1)>" not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    marked = re.findall(r"<mark>(.*?)</mark>", raw, re.DOTALL)
    assert len(marked) == 1 and "EXEC-4429" in marked[0] and "tool_use" in marked[0]


def test_arms_stand_side_by_side_on_one_condition(made: Path) -> None:
    page = next(iter(made.glob("transcripts/*murder-none.html"))).read_text(encoding="utf-8")
    columns = page.split('<section id="arm-')[1:]
    assert len(columns) == 2
    assert "<strong>decided</strong>" in columns[0] and "<strong>not_decided</strong>" in columns[1]
    assert "What every arm was asked" in page and "As I see it." in columns[0]


def test_markdown_tables_hold_together(made: Path) -> None:
    lines = (made / "report.md").read_text(encoding="utf-8").splitlines()
    cells = re.compile(r"(?<!\\)\|")
    tables = 0
    for place, line in enumerate(lines):
        if re.fullmatch(r"\|(---\|)+", line):
            tables += 1
            width = len(cells.findall(line))
            block = [lines[place - 1]]
            for row in lines[place + 1 :]:
                if not row.startswith("|"):
                    break
                block.append(row)
            assert len(block) > 1 and {len(cells.findall(row)) for row in block} == {width}, block
    assert tables >= 6
    text = "\n".join(lines)
    for image in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert (made / image).is_file()
