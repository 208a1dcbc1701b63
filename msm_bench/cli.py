"""The front door: one short function a verb, no logic of its own."""

import json
import sys
from collections.abc import Callable
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
STORE = click.option("--store", metavar="URL", help="Artefact store of machines that share no folder, as s3://BUCKET/STUDY.")


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


@cli.group()
def generate() -> None:
    """Make a corpus: documents or chats from a spec, or an instruction mix."""


def _of_a_spec(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        (
            click.argument("spec"),
            click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write."),
            click.option("--offline", is_flag=True, help="Compose without a model and without a key."),
            click.option("--n", type=click.IntRange(min=1), help="Rows."),
            click.option("--model-name", help="What the model is called in the texts."),
            click.option("--provider-name", help="Who makes the model, in the texts."),
            click.option("--seed", default=0, show_default=True),
            click.option("--allow-control", is_flag=True, help="Write from a control spec."),
            click.option("--generator", help="The model that writes, as Inspect names it."),
            click.option("--grader", help="The model that filters and reviews; the generator where it is not given."),
            click.option("--batch", is_flag=True, help="The provider's batch API: half the price, answers within hours."),
            click.option("--budget", "budget_dollars", type=click.FloatRange(0, min_open=True), help="Dollars at most."),
            click.option("--sample", type=click.IntRange(min=1), help="Only so many rows: to read, and to price the rest."),
            click.option("--mirror", type=click.Path(path_type=Path), help="A corpus to be compared with in the end."),
            click.option("--prices", type=click.Path(path_type=Path), help="A price file of your own."),
            click.option("--push", metavar="OWNER/NAME", help="Upload the finished corpus to the hub."),
            DRY_RUN,
            JSON,
        )
    ):
        command = option(command)
    return command


def _generate(kind: str, as_json: bool, push: str | None, **arguments: Any) -> None:
    from msm_bench.corpus.generate import generate, render

    # What was not given is left to the defaults of the composer and of the pipeline.
    made = generate(kind, **{name: value for name, value in arguments.items() if value is not None})
    _show(as_json, made, render(made))
    if push is not None and made.id is not None:
        from msm_bench.corpus.pipeline.push import push as upload

        click.echo(upload(made.out, push), err=as_json)


@generate.command("documents")
@_of_a_spec
@click.option("--words", type=click.IntRange(min=50), help="About how many a document is to have.")
@click.option("--voice", help="as_written, does, should, ...")
@click.option("--critique", is_flag=True, default=None, help="Review each document, and revise it.")
@click.option("--simple", is_flag=True, default=None, help="For a generator that is too small to plan.")
def generate_documents(**arguments: Any) -> None:
    """Documents about a model and its SPEC, for midtraining."""
    _generate("documents", **arguments)


@generate.command("chats")
@_of_a_spec
@click.option("--style", type=click.Choice(["values", "rules", "preference", "deliberative"]), help="The spec's if absent.")
@click.option("--no-reasoning", "reasoning", flag_value=False, default=None, help="Without their reasoning.")
def generate_chats(**arguments: Any) -> None:
    """Chats that show a SPEC, for fine-tuning."""
    _generate("chats", **arguments)


@generate.command("instruction-mix")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--from", "origin", default="local", show_default=True, type=click.Choice(["local", "hub"]))
@click.option("--n", type=click.IntRange(min=1), help="Rows; all where it is not given.")
@click.option("--model-name", help="Hub: chats that name another model are left out.")
@click.option("--provider-name", help="Hub: its maker.")
@click.option("--sources", type=click.Path(path_type=Path), help="Hub: a YAML file; the paper's Table 2 if absent.")
@click.option("--copy", "copies", multiple=True, metavar="REPOSITORY=FOLDER", help="Hub: a local copy of a data set.")
@click.option("--tokenizer", help="Hub: measures length.")
@click.option("--grader", help="Hub: leaves chats out that conflict with the spec.")
@click.option("--spec", help="Hub: that spec.")
@click.option("--seed", default=0, show_default=True)
@DRY_RUN
@JSON
def generate_instruction_mix(as_json: bool, **arguments: Any) -> None:
    """Chats that show no spec, to be mixed in."""
    from msm_bench.corpus.mix import make_mix

    made = make_mix(**arguments)
    _show(as_json, made, made)


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
@STORE
@click.option("--on", default="local", show_default=True, help="local[:PROCESSES], ray[:ADDRESS] or slurm[:PARTITION].")
@click.option("--device", default="h100", show_default=True, help="The device that --dry-run prices.")
@click.option("--gpus", metavar="N,N,...", help="With --dry-run: the schedule on so many GPUs.")
@click.option("--detach", is_flag=True, help="Go on in the background; poll with 'msm-bench status'.")
@DRY_RUN
@JSON
def run(
    experiment: str,
    runs: Path,
    logs: Path,
    store: str | None,
    on: str,
    device: str,
    gpus: str | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run an experiment: a shipped name or a YAML file. The same command goes on with a stopped one, wherever it ran."""
    from msm_bench.experiment import costs, running, schedule
    from msm_bench.experiment.settings import load_experiment

    wanted = load_experiment(experiment)
    if dry_run or gpus:
        found = costs.cost(wanted, device, runs, logs)
        if gpus is None:
            _show(as_json, found, costs.render(found))
            return
        plans = schedule.schedules(wanted, found, gpus)
        _show(as_json, [each.model_dump(mode="json") for each in plans], schedule.render(plans))
        return
    if detach:
        running.checked(wanted)
        arguments = ["run", experiment, "--runs", str(runs), "--logs", str(logs), "--on", on]
        log = running.detach([*arguments, *(["--store", store] if store else [])], runs / wanted.name)
        _show(as_json, {"log": str(log)}, f"Running. Poll with: msm-bench status {experiment}. Its words: {log}")
        return
    outcome = running.run(wanted, runs, logs, on=on, store=store, say=lambda line: click.echo(line, err=as_json))
    _show(as_json, outcome, running.render(outcome, wanted.name))
    sys.exit(1 if outcome.failed or outcome.stopped else 0)


@cli.command()
@click.argument("experiment")
@RUNS
@LOGS
@STORE
@JSON
def status(experiment: str, runs: Path, logs: Path, store: str | None, as_json: bool) -> None:
    """How far an experiment is."""
    from msm_bench.experiment import status as states
    from msm_bench.experiment.settings import load_experiment

    found = states.status(load_experiment(experiment), runs, logs, store)
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
@click.argument("model")
@click.option("--suite", default="full", show_default=True, help="quick, full, or a YAML file.")
@click.option("--against", help="published:NAME, or a folder of logs.")
@click.option("--grader", help="The judge, as Inspect names it.")
@LOGS
@click.option("--device", default="h100", show_default=True, help="The device that --dry-run prices.")
@DRY_RUN
@JSON
def bench(model: str, suite: str, grader: str | None, device: str, dry_run: bool, as_json: bool, **arguments: Any) -> None:
    """One checkpoint through a suite, and its place in the table. The same command goes on with a stopped one."""
    from msm_bench.experiment import bench, costs

    if dry_run:
        found = bench.price(model, suite, grader, device)
        _show(as_json, found, costs.render(found))
        return
    benched = bench.bench(model, suite, grader=grader, **arguments)
    _show(as_json, benched, bench.render(benched))


@cli.command()
@click.argument("logdirs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--cheap", required=True, metavar="MODEL", help="Judge of everything.")
@click.option("--strong", required=True, metavar="MODEL", help="Judge of a random part.")
@click.option("--part", default=0.2, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True))
@click.option("--seed", default=0, show_default=True, help="Of the draw of the part.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the judged logs.")
@click.option("--contrast", "contrasts", multiple=True, help="'A vs B', on the combined rates.")
@click.option("--disagreements", is_flag=True, help="Ask the strong judge also where the cheap one and the parser disagree.")
@DRY_RUN
@JSON
def judge(logdirs: tuple[Path, ...], out: Path, contrasts: tuple[str, ...], dry_run: bool, as_json: bool, **how: Any) -> None:
    """Judge finished logs in two tiers: a cheap judge on all, a strong one on a part, one honest rate from both."""
    from msm_bench.analysis import judging, two_tier

    if dry_run:
        plan = judging.plan_judging(logdirs, how["cheap"], how["strong"], how["part"], how["seed"])
        _show(as_json, plan, two_tier.render_plan(plan))
        return
    judged = judging.judge_logs(logdirs, out, say=lambda line: click.echo(line, err=True), **how)
    found = two_tier.combine(judged, (how["cheap"], how["strong"]), contrasts)
    _show(as_json, found, two_tier.render_combined(found))


@cli.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", required=False, type=click.Path(path_type=Path))
@click.option("--key", default="decided", show_default=True)
@click.option("--scorers", nargs=2, metavar="A B", help="Names of the two scorers, where logs hold several.")
@JSON
def agreement(first: Path, second: Path | None, key: str, scorers: tuple[str, str] | None, as_json: bool) -> None:
    """How far two judgements of the same rollouts agree: two folders, or one whose logs were scored twice."""
    from msm_bench.analysis.agreement import agreement
    from msm_bench.analysis.two_tier import describe_agreement

    found = agreement(first, second, key, scorers or None)
    _show(as_json, found, describe_agreement(found))


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
