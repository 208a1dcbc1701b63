"""Corpora by a language model: a pipeline that wastes nothing and lets nothing bad through.

outcome = generate_with_model("documents", load_spec("philosophy"), out, n=200, model_name="Qwen",
                              provider_name="Alibaba", generator="anthropic/claude-opus-4-6", dry_run=True)
rich.print(outcome.quote)

settings  what is wanted                      store    every answered call, on disk at once
documents, chats  the stages                  asking   one stage as an Inspect task; attempts, give-up
replies   strict reading of answers           budget   what may be spent
prompts   the texts, from prompts/*.md        batches  batches that survive a kill
gate      the checks of finished rows         prices, quote  dollars before and after
report    yields, ledger, sample, card        generate the whole way
"""

from msm_bench.corpus.pipeline.generate import Outcome, generate_with_model
from msm_bench.corpus.pipeline.quote import Quote, quote
from msm_bench.corpus.pipeline.settings import Settings

__all__ = ["Outcome", "Quote", "Settings", "generate_with_model", "quote"]
