"""A run on several processes: `accelerate launch` starts this module once a process, and each does the same request.

python -m msm_bench.trainers.launch REQUEST.json
"""

import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

import torch.distributed

from msm_bench.errors import MsmBenchError, UnknownNameError, WorkError
from msm_bench.trainers.run import Request, execute, prepare

CONFIGS = Path(__file__).parent / "accelerate"


def config_file(name: str) -> Path:
    """The file of a configuration: a shipped name, or a path. Raises `UnknownNameError` for neither."""
    shipped = {path.stem: path for path in CONFIGS.glob("*.yaml")}
    path = shipped.get(name, Path(name).expanduser())
    if not path.is_file():
        raise UnknownNameError("Accelerate configuration", name, sorted(shipped))
    return path


def launch(request: Request, config: str) -> None:
    """Run a request under `accelerate launch`; the failure of any process ends all of them.

    Args:
        request: Checked already, so that what is wrong with it was said once.
        config: A shipped configuration or a file.

    Raises:
        UnknownNameError: there is no such configuration.
        WorkError: a process failed; its own message stands above on stderr.
    """
    file = config_file(config)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(request.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
        # Descriptor 2: stdout belongs to the command that launches.
        done = subprocess.run([*command, "-m", "msm_bench.trainers.launch", str(path)], check=False, stdout=2)
    if done.returncode:
        raise WorkError(
            f"A process of the run failed (exit code {done.returncode}).",
            "Read its message above; the same command goes on from the last complete state.",
        )


def main(path: str) -> None:
    """One process of a launched run. A failure ends it at once, so that the launcher ends the others."""
    try:
        execute(prepare(Request.model_validate_json(Path(path).read_text(encoding="utf-8"))))
    except MsmBenchError as error:
        print(str(error), file=sys.stderr)
        _leave(error.exit_code)
    except BaseException:
        traceback.print_exc()
        _leave(1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _leave(code: int) -> NoReturn:
    # Not by way of the interpreter's end: leaving a group waits for the others, and they wait for this process in a sum.
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
