"""What the models of an experiment's logs have cost so far. Each log is read once, and again only when it has grown."""

from dataclasses import dataclass, field
from pathlib import Path

from msm_bench.corpus.pipeline.prices import PriceBook, Usage, load_prices
from msm_bench.errors import RequestError
from msm_bench.experiment.cells import Plan
from msm_bench.experiment.places import Places


@dataclass
class Spending:
    """Counts dollars by the price file, log by log."""

    plan: Plan
    places: Places
    _book: PriceBook = field(default_factory=load_prices)
    _known: dict[Path, tuple[tuple[int, int], float]] = field(default_factory=dict)
    """Log to its size and time when it was read, and its dollars."""
    reads: int = 0
    """Logs that were opened, for whoever wonders."""

    def dollars(self) -> float:
        """What all logs that are there cost.

        Raises:
            RequestError: the price file does not know one of the models.
        """
        total = 0.0
        for cell in self.plan.evaluations:
            for path in sorted(self.places.folder(cell).glob("*.eval")):
                try:
                    found = path.stat()
                except OSError:  # replaced by a newer one between the listing and the look
                    continue
                mark = (found.st_size, found.st_mtime_ns)
                if path not in self._known or self._known[path][0] != mark:
                    self._known[path] = mark, self._read(path)
                total += self._known[path][1]
        return total

    def _read(self, path: Path) -> float:
        from inspect_ai.log import read_eval_log

        self.reads += 1
        total = 0.0
        for model, usage in (read_eval_log(path, header_only=True).stats.model_usage or {}).items():
            price = self._book.price(model)
            if price is None:
                raise RequestError(f"There is no price for '{model}', and a budget in dollars needs one.", "Set hours instead.")
            read, write = usage.input_tokens_cache_read or 0, usage.input_tokens_cache_write or 0
            counted = Usage(input=usage.input_tokens, output=usage.output_tokens, cache_read=read, cache_write=write)
            total += price.dollars(counted)
        return total
