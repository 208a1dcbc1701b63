"""The house: links lead into the package, and both spellings of a task name the same tasks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("link", ["tasks", "scorers", "specs"])
def test_links_resolve_into_the_package(link: str) -> None:
    assert (ROOT / link).resolve() == ROOT / "msm_bench" / link


def test_listed_tasks_are_the_registered_ones() -> None:
    inspect = str(Path(sys.executable).with_name("inspect"))
    listed = subprocess.run([inspect, "list", "tasks", "tasks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    from msm_bench import _registry

    tasks = {line.rpartition("@")[2].strip() for line in listed.splitlines() if "@" in line}
    assert tasks == {"agentic_misalignment"} and tasks <= set(_registry.__all__)
