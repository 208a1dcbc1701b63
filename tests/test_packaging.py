"""The house: links lead into the package, and both spellings of a task name the same tasks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("link", ["tasks", "scorers", "trainers", "specs"])
def test_links_resolve_into_the_package(link: str) -> None:
    assert (ROOT / link).resolve() == ROOT / "msm_bench" / link


def test_listed_tasks_are_the_registered_ones() -> None:
    from inspect_ai._util.registry import is_registry_object

    from msm_bench import _registry

    inspect = str(Path(sys.executable).with_name("inspect"))
    listed = subprocess.run([inspect, "list", "tasks", "tasks"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = [line.rpartition("@")[2].strip() for line in listed.splitlines() if "@" in line]
    registered = [name for name in _registry.__all__ if is_registry_object(getattr(_registry, name), "task")]
    assert sorted(found) == sorted(registered) and "agentic_misalignment" in found


def test_a_wheel_in_a_fresh_environment_holds_and_runs_every_task(tmp_path: Path) -> None:
    """The wheel alone, without the checkout: its dependencies come from the environment that runs the tests."""
    from msm_bench import _registry

    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    # Only the dependencies are borrowed; a finder that leads to the checkout would make the test say nothing.
    borrowed = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (site / "borrowed.pth").write_text(f"import sys; sys.path.append({str(borrowed)!r})\n")
    script = (
        "import msm_bench, sys; from pathlib import Path; "
        "assert Path(msm_bench.__file__).is_relative_to(sys.prefix), msm_bench.__file__; "
        "from inspect_ai._util.registry import registry_create, is_registry_object; "
        "from msm_bench import _registry; "
        "names = [n for n in _registry.__all__ if is_registry_object(getattr(_registry, n), 'task')]; "
        "print(*(n + ':' + str(len(registry_create('task', 'msm_bench/' + n).dataset)) for n in names))"
    )
    ran = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    sizes = dict(part.split(":") for part in ran.stdout.split())
    assert sizes["agentic_misalignment"] == "27" and all(int(size) > 0 for size in sizes.values())
    assert set(sizes) < set(_registry.__all__)
