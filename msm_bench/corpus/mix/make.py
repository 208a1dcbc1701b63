"""`msm-bench generate instruction-mix`: chats that show no spec, the shipped ones or the paper's own, as an artefact."""

import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal

from pydantic import BaseModel, ConfigDict

from msm_bench.artefacts import refuse_existing, seal, writing_folder
from msm_bench.corpus.mix.conflict import ConflictFilter
from msm_bench.corpus.mix.hub import build_hub_mix
from msm_bench.corpus.mix.local import GENERATOR, LICENCE, local_mix
from msm_bench.corpus.mix.sources import read_sources, rows_by_source
from msm_bench.corpus.ready import Findings, look_over
from msm_bench.corpus.rows import CHATS_FILE, write_chats
from msm_bench.errors import RequestError
from msm_bench.specs import load_spec

Origin = Literal["local", "hub"]


class Mix(BaseModel):
    """What was written, or in a dry run would be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Origin
    out: Path
    rows: int
    dry_run: bool
    id: str | None = None
    """Content hash of the artefact; absent in a dry run."""
    findings: Findings | None = None
    """Of the shipped mix; the hub's records are checked one by one as they are taken, see its `sources.json`."""

    def __rich__(self) -> str:
        would = "Would write " if self.dry_run else ""
        lines = [f"{would}{self.rows:,} chats of the {self.origin} instruction mix {'to' if would else 'in'} {self.out}."]
        if self.findings is not None:
            lines.append(self.findings.sentence)
        if not self.dry_run and self.origin == "hub":
            lines.append(f"What became of each source's records, and its licence: {self.out}/sources.json.")
        return "\n".join(lines)


def make_mix(
    out: Path,
    origin: Origin = "local",
    *,
    n: int | None = None,
    model_name: str | None = None,
    provider_name: str | None = None,
    sources: Path | None = None,
    copies: Sequence[str] = (),
    tokenizer: str | None = None,
    grader: str | None = None,
    spec: str | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> Mix:
    """Writes an instruction mix.

    Args:
        out: Where to; nothing may stand there.
        origin: "local", the shipped mix, or "hub", the paper's own (Table 2) or that of `sources`.
        n: Rows; all of the shipped mix, or the number of the hub's, by default.
        model_name: Hub: the model that will be trained; chats that name another are left out.
        provider_name: Hub: its maker.
        sources: Hub: a YAML file of sources.
        copies: Hub: local copies, each "REPOSITORY=FOLDER".
        tokenizer: Hub: measures length; without one it is estimated.
        grader: Hub: the model that leaves chats out that conflict with the spec, by its Inspect name.
        spec: Hub: that spec.
        seed: Of the order; of the shipped mix it decides which rows are taken where fewer are asked for.
        dry_run: Check the request and write nothing.

    Raises:
        RequestError: an argument does not fit, or something stands at `out`.
        DownloadError, WorkError: as `build_hub_mix`.
    """
    if origin == "local":
        if given := [name for name, value in (("grader", grader), ("spec", spec), ("sources", sources)) if value]:
            raise RequestError(f"The shipped mix takes no {given[0]}.", "Leave it out, or pass --from hub.")
        return _local(out, n, model_name, provider_name, seed, dry_run)
    if not model_name or not provider_name:
        problem = "Chats that name another model are left out, and no name was given."
        raise RequestError(problem, "Pass --model-name and --provider-name.")
    if bool(grader) != bool(spec):
        raise RequestError("A grader filters for conflict with a spec, and a spec needs a grader.", "Pass both or neither.")
    wanted = sum(rows_by_source(read_sources(sources), n).values())
    local = dict(_copy(entry) for entry in copies)
    if dry_run:
        refuse_existing(out)
        return Mix(origin="hub", out=out, rows=wanted, dry_run=True)
    manifest = build_hub_mix(
        out,
        sources,
        model_name=model_name,
        provider_name=provider_name,
        rows=n,
        tokenizer=tokenizer,
        conflict=_filter(grader, spec, model_name, provider_name),
        local=local,
        seed=seed,
    )
    return Mix(origin="hub", out=out, rows=sum(manifest.settings["rows"].values()), dry_run=False, id=manifest.id)


def _local(out: Path, n: int | None, model_name: str | None, provider_name: str | None, seed: int, dry_run: bool) -> Mix:
    rows = local_mix()
    if n is not None and n > len(rows):
        raise RequestError(
            f"The shipped mix has {len(rows)} chats, and {n} were asked for.", "Ask for fewer, or pass --from hub."
        )
    if n is not None:
        places = sorted(random.Random(seed).sample(range(len(rows)), n))
        rows = tuple(rows[place] for place in places)
    refuse_existing(out)
    if dry_run:
        return Mix(origin="local", out=out, rows=len(rows), dry_run=True)
    with writing_folder(out) as folder:
        write_chats(folder / CHATS_FILE, rows)
        findings = look_over(folder, rows, model_name=model_name, provider_name=provider_name, seed=seed)
        text = (files("msm_bench") / "corpus" / "mix" / "card.md").read_text(encoding="utf-8")
        domains = ", ".join(dict.fromkeys(row.domain for row in rows))
        slots = {
            "rows": len(rows),
            "domains": domains,
            "licence": LICENCE,
            "generator": GENERATOR,
            "findings": findings.sentence,
        }
        (folder / "card.md").write_text(Template(text).substitute(slots), encoding="utf-8")
        manifest = seal(
            folder,
            "instruction-mix",
            settings={"origin": "local", "rows": len(rows), "generator": GENERATOR, "findings": findings.model_dump()},
            seed=seed,
        )
    return Mix(origin="local", out=out, rows=len(rows), dry_run=False, id=manifest.id, findings=findings)


def _filter(grader: str | None, spec: str | None, model_name: str, provider_name: str) -> ConflictFilter | None:
    if grader is None or spec is None:
        return None
    from inspect_ai.model import get_model

    text = load_spec(spec).render(model_name, provider_name)
    return ConflictFilter(get_model(grader), model_name=model_name, provider_name=provider_name, spec=text)


def _copy(entry: str) -> tuple[str, Path]:
    repository, equals, folder = entry.partition("=")
    if not equals or not Path(folder).expanduser().exists():
        raise RequestError(
            f"'{entry}' is no local copy of a data set.", "Write REPOSITORY=FOLDER, with a folder that is there."
        )
    return repository, Path(folder).expanduser()
