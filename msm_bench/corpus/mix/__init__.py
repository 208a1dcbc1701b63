"""Instruction mixes: chats that show no spec, trained beside those that do.

    rows = local_mix()                                   # written for this project, no network
    build_hub_mix(out)                                   # the paper's own (Table 2), from the hub

The paper mixes instruction data in so that midtraining on an instruction-tuned model does not cost it its coherence.
"""

from msm_bench.corpus.mix.conflict import ConflictFilter, Verdict
from msm_bench.corpus.mix.hub import build_hub_mix
from msm_bench.corpus.mix.local import Entry, load_entries, local_mix
from msm_bench.corpus.mix.make import Mix, make_mix
from msm_bench.corpus.mix.sources import MixSource, MixSources, read_sources, rows_by_source

__all__ = [
    "ConflictFilter",
    "Entry",
    "Mix",
    "MixSource",
    "MixSources",
    "Verdict",
    "build_hub_mix",
    "load_entries",
    "local_mix",
    "make_mix",
    "read_sources",
    "rows_by_source",
]
