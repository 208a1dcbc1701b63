"""A local labeller from a judge's labels in logs: what `msm-bench patterns fit LOGDIR...` does.

    fitted = fit_from_logs(["logs/base", "logs/msm"], Path("runs/labeller"))
    print(table(fitted.gates))

The judge's quotes say which sentences carried a label, so the classifiers learn from those sentences and not from whole
transcripts. Cross-validation keeps all rollouts of a condition together.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from logging import getLogger
from pathlib import Path

from inspect_ai.log import EvalSample, list_eval_logs, read_eval_log, read_eval_log_samples
from pydantic import TypeAdapter

from msm_bench.artefacts import refuse_existing
from msm_bench.errors import RequestError
from msm_bench.scorers.patterns.fitting import Fitted, fit_labeller
from msm_bench.scorers.patterns.labelled_set import LabelledText, Span, load_labelled, set_hash
from msm_bench.scorers.patterns.labels import Label
from msm_bench.scorers.patterns.taxonomy import load_taxonomy
from msm_bench.scorers.patterns.text import reasoning_of

logger = getLogger(__name__)
SCORER = "reasoning_patterns"
_LABELS = TypeAdapter(tuple[Label, ...])


def fit_from_logs(logdirs: Sequence[str | Path], out: Path, *, with_labelled_set: bool = False) -> Fitted:
    """Fits a local labeller to the labels that a judge left in logs, and writes it.

    Args:
        logdirs: Log folders (searched with their sub-folders) or log files.
        out: Folder for the labeller; nothing may stand there.
        with_labelled_set: Learn from the labelled set as well.

    Returns:
        The labeller with its cross-validated gates against the judge's own labels.

    Raises:
        RequestError: `out` exists, a log folder does not, no transcript carries a judge's labels, or there are too few.
    """
    refuse_existing(out)
    began = time.monotonic()
    judges: set[str] = set()
    texts = list(judged_texts(logdirs, judges))
    if not texts:
        raise RequestError(
            f"No transcript under {', '.join(map(str, logdirs))} has labels of a judge.",
            "Run first: inspect score LOG --scorer msm_bench/reasoning_patterns --model-role grader=PROVIDER/MODEL",
        )
    parents = {"transcripts": set_hash(texts)}
    if with_labelled_set:
        shipped = load_labelled()
        parents["labelled_set"] = set_hash(shipped)
        texts += shipped
    fitted = fit_labeller(texts, load_taxonomy().ids)
    fitted.labeller.info["judged_by"] = sorted(judges)
    fitted.labeller.save(out, parents, {"seconds": round(time.monotonic() - began, 1)})
    return fitted


def judged_texts(logdirs: Iterable[str | Path], judges: set[str] | None = None) -> Iterator[LabelledText]:
    """The transcripts of logs that a judge has labelled; the group is the condition (the sample's id).

    The judges' names, each with the hash of its prompt, are added to `judges`.
    """
    skipped = 0
    for log, sample in samples_of(logdirs):
        for name, score in (sample.scores or {}).items():
            metadata = score.metadata or {}
            labeller = metadata.get("labeller") or {}
            if name.split("/")[-1] != SCORER or metadata.get("outcome") != "labelled" or labeller.get("kind") != "judge":
                continue
            text, _ = reasoning_of(sample.output)
            labels = _LABELS.validate_python(metadata.get("labels") or [])
            if any(text[label.start : label.end] != label.quote for label in labels):
                skipped += 1  # the log was edited after it was judged: its offsets mean nothing any more
                continue
            if judges is not None:
                judges.add(f"{labeller.get('model')} {labeller.get('prompt')}")
            yield LabelledText(
                id=f"{sample.uuid or log}/{sample.id}/{sample.epoch}",
                group=str(sample.id),
                text=text,
                labels=frozenset(label.pattern for label in labels),
                spans=tuple(Span(pattern=label.pattern, start=label.start, end=label.end) for label in labels),
            )
    if skipped:
        logger.warning(f"{skipped} transcripts were left out: their text is not the one that the judge read.")


def samples_of(logdirs: Iterable[str | Path]) -> Iterator[tuple[str, EvalSample]]:
    """The samples of log folders and files, each with its log's name; raises `RequestError` for a place that is not there."""
    for place in logdirs:
        if not Path(place).exists():
            raise RequestError(f"There is no log folder '{place}'.", "Name a folder or file of Inspect logs.")
        for info in list_eval_logs(str(place)) if Path(place).is_dir() else [str(place)]:
            if read_eval_log(info, header_only=True).results is None:
                continue
            name = info if isinstance(info, str) else info.name
            for sample in read_eval_log_samples(info, all_samples_required=False):
                yield name, sample
