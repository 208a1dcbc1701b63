"""Corpora by a language model: a pipeline that wastes nothing and lets nothing bad through.

outcome = generate_with_model("documents", load_spec("philosophy"), out, n=200, model_name="Qwen",
                              provider_name="Alibaba", generator="anthropic/claude-opus-4-6", dry_run=True)
rich.print(outcome.quote)

settings         what is wanted                      store          every answered call, on disk at once
documents, chats the stages                          asking         one stage as an Inspect task; attempts, give-up
planning         plans documents with the generator  calling        one call: what is sent, what became of it
spec_plan        plans them from the spec's text     budget         what may be spent
replies, fitting strict reading of answers           batches        batches that survive a kill
prompts          the texts, from prompts/*.md        prices, quote  dollars before and after
gate             the checks of finished rows         report         yields, ledger, card
writing          the finished folder                 generate       the whole way
"""

from msm_bench.corpus.pipeline.generate import Outcome, generate_with_model
from msm_bench.corpus.pipeline.quote import Quote, quote
from msm_bench.corpus.pipeline.settings import Settings

__all__ = ["Outcome", "Quote", "Settings", "generate_with_model", "quote"]
