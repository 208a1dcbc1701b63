"""The front door: one short function a verb, no logic of its own."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console, RenderableType

from msm_bench import __version__
from msm_bench.errors import MsmBenchError

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what it would take, and do nothing.")
RUNS = click.option(
    "--runs", default="runs", type=click.Path(path_type=Path), show_default=True, help="Corpora and checkpoints."
)
LOGS = click.option("--logs", default="logs", type=click.Path(path_type=Path), show_default=True, help="Inspect logs.")


def _show(as_json: bool, content: BaseModel | dict[str, Any] | list[Any], rendered: RenderableType) -> None:
    if as_json:
        plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
        click.echo(json.dumps(plain, indent=2, allow_nan=False))
    else:
        Console().print(rendered)


@click.group()
@click.version_option(__version__)
def cli() -> None:
    """MSM-Bench: measure whether a model acts on its values where it costs something."""


@cli.command()
@JSON
def doctor(as_json: bool) -> None:
    """What works on this machine, and the mend for what does not."""
    from msm_bench.doctor import diagnose, render

    checks = diagnose()
    _show(as_json, [check.model_dump() for check in checks], render(checks))
    sys.exit(1 if any(check.status == "fail" for check in checks) else 0)


@cli.command()
@click.argument("kind", type=click.Choice(["documents", "chats"]))
@click.argument("spec")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--offline", is_flag=True, help="Compose without a model and without a key.")
@click.option("--n", type=click.IntRange(min=1), help="Rows.")
@click.option("--model-name", help="What the model is called in the texts.")
@click.option("--provider-name", help="Who makes the model, in the texts.")
@click.option("--seed", default=0, show_default=True)
@click.option("--allow-control", is_flag=True, help="Write from a control spec.")
@click.option("--generator", help="The model that writes, as Inspect names it.")
@click.option("--grader", help="The model that filters and reviews; the generator where it is not given.")
@click.option("--batch", is_flag=True, help="The provider's batch API: half the price, answers within hours.")
@click.option("--budget", "budget_dollars", type=click.FloatRange(0, min_open=True), help="Dollars at most.")
@click.option("--sample", type=click.IntRange(min=1), help="Write only so many rows, and price the rest from them.")
@click.option("--style", type=click.Choice(["values", "rules", "preference", "deliberative"]), help="Of chats.")
@click.option("--voice", help="Of documents: as_written, does, should, ...")
@click.option("--critique", is_flag=True, help="Review each document, and revise it.")
@click.option("--no-reasoning", "reasoning", flag_value=False, default=True, help="Chats without their reasoning.")
@click.option("--prices", type=click.Path(path_type=Path), help="A price file of your own.")
@click.option("--push", metavar="OWNER/NAME", help="Upload the finished corpus to the hub.")
@DRY_RUN
@JSON
def generate(as_json: bool, push: str | None, **arguments: Any) -> None:
    """Make a corpus from a spec."""
    from msm_bench.corpus.generate import generate, render

    # What was not given is left to the pipeline's own defaults; the offline composer has none of it.
    made = generate(**{name: value for name, value in arguments.items() if value is not None})
    _show(as_json, made, render(made))
    if push is not None and made.id is not None:
        from msm_bench.corpus.pipeline.push import push as upload

        click.echo(upload(made.out, push), err=as_json)


@cli.command()
@click.argument("name", metavar="msm|aft|deliberative|PLUGIN")
@click.option("--recipe", required=True, help="paper, laptop, or a YAML file.")
@click.option("--model", help="Base model; that of --from where it is not given.")
@click.option("--data", required=True, multiple=True, help="Folder of a corpus, or FOLDER=SHARE.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the checkpoint.")
@click.option("--from", "parent", help="Checkpoint whose adapter is continued.")
@click.option("--set", "overrides", multiple=True, metavar="K=V", help="A setting of the recipe.")
@click.option("--accelerate", help="gpu-1, gpu-2, gpu-4, gpu-8, ... or a configuration file of Accelerate's.")
@click.option("--grader", help="The judge of a second stage.")
@click.option("--allow-control", is_flag=True, help="Train on a control spec.")
@click.option("--allow-few-updates", is_flag=True, help="Train with fewer updates than the floor.")
@click.option("--waive", multiple=True, metavar="CHECK", help="A check of the texts to let through, by name.")
@click.option("--no-probe", "probe", flag_value=False, default=True, help="Price without measuring.")
@DRY_RUN
@JSON
def train(as_json: bool, overrides: tuple[str, ...], **arguments: Any) -> None:
    """Train a checkpoint from corpora."""
    from msm_bench.trainers import parse_overrides, train
    from msm_bench.trainers.card import render

    made = train(overrides=parse_overrides(overrides), **arguments)
    _show(as_json, made, render(made))


@cli.command()
@click.argument("experiment")
@RUNS
@LOGS
@click.option("--device", default="h100", show_default=True, help="The device that --dry-run prices.")
@click.option("--detach", is_flag=True, help="Go on in the background; poll with 'msm-bench status'.")
@DRY_RUN
@JSON
def run(experiment: str, runs: Path, logs: Path, device: str, detach: bool, dry_run: bool, as_json: bool) -> None:
    """Run an experiment: a shipped name or a YAML file. The same command goes on with a stopped one."""
    from msm_bench.experiment import costs, running
    from msm_bench.experiment.settings import load_experiment

    wanted = load_experiment(experiment)
    if dry_run:
        found = costs.cost(wanted, device, runs, logs)
        _show(as_json, found, costs.render(found))
        return
    if detach:
        log = running.detach(["run", experiment, "--runs", str(runs), "--logs", str(logs)], runs / wanted.name)
        _show(as_json, {"log": str(log)}, f"Running. Poll with: msm-bench status {experiment}. Its words: {log}")
        return
    outcome = running.run(wanted, runs, logs, say=lambda line: click.echo(line, err=as_json))
    _show(as_json, outcome, running.render(outcome, wanted.name))
    sys.exit(1 if outcome.failed or outcome.stopped else 0)


@cli.command()
@click.argument("experiment")
@RUNS
@LOGS
@JSON
def status(experiment: str, runs: Path, logs: Path, as_json: bool) -> None:
    """How far an experiment is."""
    from msm_bench.experiment import status as states
    from msm_bench.experiment.settings import load_experiment

    found = states.status(load_experiment(experiment), runs, logs)
    _show(as_json, found, states.render(found))


@cli.command()
@click.argument("logdirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--against", help="published:NAME, or a folder of logs.")
@click.option("--contrast", "contrasts", multiple=True, help="'A vs B [on GROUP [minus GROUP]] [within MARGIN]'.")
@click.option("--insist", is_flag=True, help="Compare across judges, prompts or recipes, with a label.")
@JSON
def compare(logdirs: tuple[Path, ...], against: str | None, contrasts: tuple[str, ...], insist: bool, as_json: bool) -> None:
    """Estimates and contrasts from logs."""
    from msm_bench.analysis.compare import compare
    from msm_bench.analysis.render import render_comparison

    found = compare(logdirs, against=against, contrasts=contrasts, insist=insist)
    _show(as_json, found.to_json(), render_comparison(found))


@cli.command()
@click.argument("logdirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the report.")
@click.option("--date", help="A date to print on it; the only thing that is not in the logs.")
@click.option("--choices", type=click.Path(path_type=Path), help="YAML file: titles, order of arms, contrasts, deviations.")
@click.option("--against", help="published:NAME, or a folder of logs.")
@click.option("--contrast", "contrasts", multiple=True, help="As in compare.")
@click.option("--insist", is_flag=True, help="Compare across judges, prompts or recipes, with a label.")
@JSON
def report(as_json: bool, **arguments: Any) -> None:
    """Pages, tables and figures from logs."""
    from msm_bench.report import render, report

    found = report(**arguments)
    _show(as_json, found, render(found))


@cli.command()
@click.option("--rollouts", type=click.IntRange(min=1), help="Rollouts a condition; gives the detectable difference.")
@click.option("--difference", type=click.FloatRange(0, 1, min_open=True), help="Wanted difference; gives the rollouts.")
@click.option("--conditions", default=27, show_default=True, type=click.IntRange(min=1))
@click.option("--arms", default=2, show_default=True, type=click.IntRange(min=2))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--rate", type=click.FloatRange(0, 1), help="Rate of the reference arm; by condition as published if absent.")
@JSON
def power(as_json: bool, **arguments: Any) -> None:
    """Rollouts for a wanted difference, or the difference for given rollouts."""
    from msm_bench.analysis.power import power, render_power

    plans = power(**arguments)
    _show(as_json, [plan.model_dump(mode="json") for plan in plans], render_power(plans))


@cli.group()
def patterns() -> None:
    """Reasoning patterns: local labellers."""


@patterns.command("fit")
@click.argument("logdirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the labeller.")
@click.option("--with-labelled-set", is_flag=True, help="Learn from the shipped passages too.")
@JSON
def patterns_fit(logdirs: tuple[Path, ...], out: Path, with_labelled_set: bool, as_json: bool) -> None:
    """A local labeller from a judge's labels in logs."""
    from msm_bench.scorers.patterns.from_logs import fit_from_logs
    from msm_bench.scorers.patterns.gates import table

    fitted = fit_from_logs(logdirs, out, with_labelled_set=with_labelled_set)
    _show(as_json, {"gates": [gate.model_dump(mode="json") for gate in fitted.gates]}, table(fitted.gates))


@patterns.command("propose")
@click.argument("logdirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="YAML file of proposed patterns.")
def patterns_propose(logdirs: tuple[Path, ...], out: Path) -> None:
    """New patterns from the free reasons in logs, for a person to accept into the taxonomy."""
    from msm_bench.scorers.patterns.proposals import propose

    propose(logdirs, out)
    Console().print(f"Read and edit {out}, then move what you accept into a taxonomy file.")


def main() -> None:
    """Runs the command line. Exit codes: 0 done, 1 the work failed, 2 the request was wrong."""
    try:
        cli()
    except MsmBenchError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
