"""The front door: one short function a verb, no logic of its own."""

import json
import sys

import click
from rich.console import Console

from msm_bench import __version__
from msm_bench.errors import MsmBenchError


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """MSM-Bench: measure whether a model acts on its values where it costs something."""


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def doctor(as_json: bool) -> None:
    """What works on this machine, and the mend for what does not."""
    from msm_bench.doctor import diagnose, render

    checks = diagnose()
    if as_json:
        click.echo(json.dumps([check.model_dump() for check in checks], indent=2))
    else:
        Console().print(render(checks))
    sys.exit(1 if any(check.status == "fail" for check in checks) else 0)


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""
    try:
        cli()
    except MsmBenchError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
