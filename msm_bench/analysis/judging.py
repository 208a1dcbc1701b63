"""Two-tier judging of finished logs: a cheap judge on everything, a strong one on a random part, one honest rate from both.

    OUT/cheap/...           the logs, judged by the cheap judge: compare and report read them
    OUT/strong/...          a random part of the same rollouts, judged by the strong judge: they read these too
    OUT/disagreements/...   if asked for: what the strong judge says where cheap judge and parser disagree. Not in any estimate,
                            since it was picked by what was said
    OUT/judgements/...      every judgement as it was bought; nothing is bought twice

The part is drawn by a seeded systematic sample along the conditions: each rollout has the same chance, each condition its
share, and the transcripts are never looked at. What comes of it is computed in `ppi`.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inspect_ai import score as inspect_score
from inspect_ai._util.registry import registry_create, registry_info, registry_log_name, registry_params
from inspect_ai.log import EvalLog, EvalSample, read_eval_log, write_eval_log
from inspect_ai.model import GenerateConfig, Model, ModelUsage, get_model
from inspect_ai.scorer import Scorer
from pydantic import BaseModel, ConfigDict

from msm_bench import __version__
from msm_bench.analysis.ledger import ASK_AGAIN, Ledger, remembering
from msm_bench.analysis.logs import PART, describe, find_logs
from msm_bench.artefacts import sha256_of_file, sha256_of_value
from msm_bench.corpus.pipeline.prices import PriceBook, Usage, load_prices
from msm_bench.errors import RequestError, WorkError
from msm_bench.scorers.judge import RUBRICS

KEYS = {"misalignment": "decided", "spec_rating": "rating"}
"""Scorers that ask a judge, and the key that the judge decides."""

TYPICAL_TOKENS = Usage(input=2200, output=350)
"""Of one judgement, where the logs do not say."""

Say = Callable[[str], None]


class JudgePlan(BaseModel):
    """What the judges are to be asked, and what it costs; dollars are None where a price is not known."""

    model_config = ConfigDict(frozen=True)

    logs: int
    arms: tuple[str, ...]
    keys: tuple[str, ...]
    rollouts: int
    cheap: str
    strong: str
    cheap_calls: int
    strong_calls: int
    cheap_dollars: float | None
    strong_dollars: float | None
    strong_alone_dollars: float | None
    """If the strong judge got everything."""


@dataclass(frozen=True)
class Spending:
    """What one judge has cost so far, over this and earlier runs: its judgements, those of this run, and its tokens."""

    judged: int
    asked: int
    usage: Usage

    def dollars(self, model: str, book: PriceBook) -> float | None:
        """In money; None where the price file does not know the judge or no token was counted."""
        price = book.price(model)
        return None if price is None or (not price.free and not self.usage.prompt) else price.dollars(self.usage)


def random_part(samples: Sequence[tuple[str, int]], part: float, seed: int, log: str) -> set[tuple[str, int]]:
    """Which of a log's (sample id, epoch) pairs the strong judge gets; the same for the same seed and log.

    Rollouts are put in the order of their conditions, in a random order inside each, and every (1 / part)-th is taken from a
    random start. So each has the chance `part`, and each condition gets its share to within one.

    Raises:
        RequestError: The part does not lie between 0 and 1.
    """
    if not 0 < part < 1:
        raise RequestError(f"A part of {part:g} is no part.", "Give a number between 0 and 1, for example 0.2.")
    rng = np.random.default_rng([seed, int(hashlib.sha256(log.encode()).hexdigest()[:12], 16)])
    rank = rng.random(len(samples))
    ordered = [one for _, one in sorted(zip(rank, sorted(samples), strict=True), key=lambda pair: (pair[1][0], pair[0]))]
    steps = np.floor((np.arange(len(ordered) + 1) + rng.random() / part) * part).astype(int)
    return {one for one, before, after in zip(ordered, steps, steps[1:], strict=False) if after > before}


def plan_judging(logdirs: Sequence[str | Path], cheap: str, strong: str, part: float = 0.2, seed: int = 0) -> JudgePlan:
    """What `judge_logs` would ask. Reads headers only.

    Raises:
        RequestError: No logs, or a log whose scorers ask no judge.
    """
    logs = find_logs(logdirs)[0]
    keys = [KEYS[_name(scorer)] for log in logs for scorer in _scorers(log)]
    # Systematic sampling takes the part to within one rollout a log; the headers tell how many rollouts there are.
    sizes = [(log.results.total_samples if log.results else 0) for log in logs]
    strong_calls = sum(round(part * size) for size in sizes)
    if strong_calls:
        random_part([("", 1)], part, seed, "")
    used = sum((log.stats.role_usage.get("grader", ModelUsage()) for log in logs), ModelUsage())
    each = TYPICAL_TOKENS if not used.output_tokens else _per_call(used, sum(sizes))
    book = load_prices()

    def dollars(model: str, calls: int) -> float | None:
        price = book.price(model)
        return None if price is None else calls * price.dollars(each)

    return JudgePlan(
        logs=len(logs),
        arms=tuple(dict.fromkeys(describe(log).arm for log in logs)),
        keys=tuple(dict.fromkeys(keys)),
        rollouts=sum(sizes),
        cheap=cheap,
        strong=strong,
        cheap_calls=sum(sizes),
        strong_calls=strong_calls,
        cheap_dollars=dollars(cheap, sum(sizes)),
        strong_dollars=dollars(strong, strong_calls),
        strong_alone_dollars=dollars(strong, sum(sizes)),
    )


@dataclass(frozen=True)
class Judging:
    """Where the two judgements lie, by folder, and what they have cost."""

    cheap: Path
    strong: Path
    disagreements: Path | None
    keys: tuple[str, ...]
    spent: dict[str, Spending]
    """By folder name."""


def judge_logs(
    logdirs: Sequence[str | Path],
    out: Path,
    cheap: str | Model,
    strong: str | Model,
    part: float = 0.2,
    seed: int = 0,
    disagreements: bool = False,
    say: Say = lambda line: None,
) -> Judging:
    """Judges every log twice: all of it by `cheap`, a random part by `strong`.

    Args:
        logdirs: Logs or folders of logs; they are not changed.
        out: Folder of the judged logs; the same call goes on with one that was stopped.
        cheap: Judge of everything, as Inspect names it.
        strong: Judge of the part.
        part: Share of the rollouts, between 0 and 1.
        seed: Of the draw.
        disagreements: Ask the strong judge also about rollouts outside the part in which the cheap judge and the parser of
            actions disagree.
        say: Gets a line for each log.

    Raises:
        RequestError: No logs, a log whose scorers ask no judge, or an `out` that holds the logs themselves.
        WorkError: A judge failed throughout a log.
    """
    random_part([("", 1)], part, seed, "")
    logs = find_logs(logdirs)[0]
    places = [Path(describe(log).path).absolute() for log in logs]
    root = Path(os.path.commonpath([place.parent for place in places]))
    if out.absolute() == root or out.absolute() in root.parents:
        raise RequestError(f"'{out}' holds the logs that are to be judged.", "Name another folder with --out.")
    judges = {"cheap": _judge(cheap), "strong": _judge(strong), "disagreements": _judge(strong)}
    tiers = _Tiers(out, judges, part, seed, {name: [] for name in judges})
    keys: dict[str, None] = {}
    for number, (log, place) in enumerate(zip(logs, places, strict=True), 1):
        keys |= {KEYS[_name(scorer)]: None for scorer in _scorers(log)}
        bought = tiers.judge(place, place.relative_to(root), disagreements)
        say(f"[{number}/{len(logs)}] {place.name}: {bought:,} judgements bought")
    spent = {name: _spending(ledgers) for name, ledgers in tiers.ledgers.items()}
    apart = out / "disagreements" if disagreements else None
    return Judging(out / "cheap", out / "strong", apart, tuple(keys), spent)


@dataclass
class _Tiers:
    out: Path
    judges: dict[str, Model]
    part: float
    seed: int
    ledgers: dict[str, list[Ledger]]

    def judge(self, source: Path, name: Path, disagreements: bool) -> int:
        """Judges one log in all tiers; returns how many judgements that bought."""
        before = self._bought()
        sha = sha256_of_file(source)
        log = read_eval_log(str(source))
        samples = [sample for sample in log.samples or [] if sample.error is None]
        chosen = random_part([_place(sample) for sample in samples], self.part, self.seed, log.eval.eval_id)
        part = [sample for sample in samples if _place(sample) in chosen]
        said = f"a random {self.part:.0%} of its rollouts (seed {self.seed})"
        cheap = self._tier("cheap", log, samples, name, sha, {})
        self._tier("strong", log, part, name, sha, {PART: said})
        if disagreements:
            doubtful = {_place(sample) for sample in cheap.samples or [] if _disagree(sample)} - chosen
            rest = [sample for sample in samples if _place(sample) in doubtful]
            self._tier("disagreements", log, rest, name, sha, {PART: "the disagreements outside the random part"})
        return self._bought() - before

    def _bought(self) -> int:
        return sum(ledger.asked for ledgers in self.ledgers.values() for ledger in ledgers)

    def _tier(self, tier: str, log: EvalLog, samples: list[EvalSample], name: Path, sha: str, facts: dict[str, str]) -> EvalLog:
        # Made anew for each judge, because a scorer keeps the grader that it found first.
        scorers = list(_scorers(log))
        judge, path = self.judges[tier], self.out / tier / name
        identity = {
            "source": sha,
            "judge": str(judge),
            "scorers": [[registry_info(scorer).name, registry_params(scorer)] for scorer in scorers],
            "part": [self.part, self.seed] if tier != "cheap" else None,
            "rubrics": _rubrics(),
        }
        key = sha256_of_value([log.eval.eval_id, *(identity[part] for part in ("judge", "scorers", "rubrics"))])
        ledger = Ledger.open(self.out / "judgements" / f"{tier}-{key[:16]}.jsonl")
        self.ledgers[tier].append(ledger)
        if path.is_file():
            done = read_eval_log(str(path))
            if (done.eval.metadata or {}).get("judged") == identity and not any(map(_unasked, done.samples or [])):
                return done
        if not samples:
            return log
        mine = log.model_copy(deep=True, update={"samples": [sample.model_copy(deep=True) for sample in samples]})
        judged = inspect_score(
            mine,
            [remembering(scorer, ledger) for scorer in scorers],
            model=get_model("none/none"),
            model_roles={"grader": judge},
            action="overwrite",
            display="none",
            copy=False,
        )
        if ledger.asked and not ledger.scores:
            raise WorkError(
                f"The judge {judge} answered nothing about {name}.", "Look at its key and its limits, and run again."
            )
        if judged.results is not None:
            judged.results.total_samples = len(samples)
        judged.eval.task_id = f"{log.eval.task_id}-{tier}"
        judged.eval.metadata = {**(log.eval.metadata or {}), "judged": identity, **facts}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".partial-{path.name}")
        write_eval_log(judged, str(partial), format="eval")
        partial.replace(path)
        return judged


def _judge(model: str | Model) -> Model:
    return get_model(model, config=GenerateConfig()) if isinstance(model, str) else model


def _scorers(log: EvalLog) -> Iterator[Scorer]:
    """The log's own scorers that ask a judge, with the arguments that it ran them with.

    Raises:
        RequestError: There is none.
    """
    import msm_bench._registry  # noqa: F401  (makes the scorers known)

    found = False
    for spec in log.eval.scorers or ():
        if spec.name.split("/")[-1] in KEYS:
            found = True
            name = spec.name if "/" in spec.name else f"msm_bench/{spec.name}"
            yield registry_create("scorer", name, **(spec.options or {}))
    if not found:
        raise RequestError(
            f"{Path(log.location).name} has no scorer that asks a judge.", f"Name logs that were scored by {' or '.join(KEYS)}."
        )


def _name(scorer: Scorer) -> str:
    return registry_log_name(scorer).split("/")[-1]


def _place(sample: EvalSample) -> tuple[str, int]:
    return str(sample.id), sample.epoch


def _unasked(sample: EvalSample) -> bool:
    """Whether the judge could not be reached about a rollout, so that it is to be asked again."""
    return any((score.metadata or {}).get("outcome") in ASK_AGAIN for score in (sample.scores or {}).values())


def _disagree(sample: EvalSample) -> bool:
    """Whether the judge and the parser of actions say different things."""
    values: dict[str, Any] = {}
    for score in (sample.scores or {}).values():
        values |= score.value if isinstance(score.value, dict) else {}
    said = {values.get("decided"), values.get("harmful_action")}
    return said == {0.0, 1.0}


def _rubrics() -> str:
    """Hash of all questions that judges are asked, and of the version that reads their answers."""
    texts = {path.name: sha256_of_file(path) for path in sorted(RUBRICS.glob("*.md"))}
    return sha256_of_value([__version__, texts])[:16]


def _spending(ledgers: Sequence[Ledger]) -> Spending:
    used = sum((ledger.used for ledger in ledgers), ModelUsage())
    return Spending(sum(len(one.scores) for one in ledgers), sum(one.asked for one in ledgers), _usage(used))


def _usage(used: ModelUsage) -> Usage:
    read, write = used.input_tokens_cache_read or 0, used.input_tokens_cache_write or 0
    return Usage(input=used.input_tokens, output=used.output_tokens, cache_read=read, cache_write=write)


def _per_call(used: ModelUsage, calls: int) -> Usage:
    total = _usage(used)
    return Usage(**{name: round(value / max(calls, 1)) for name, value in total.model_dump().items()})
