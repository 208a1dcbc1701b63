"""Logs in, estimates and contrasts with honest intervals out. Modules are imported by name, so that this import is free.

from msm_bench.analysis.compare import compare            compare("logs/", contrasts=["msm+aft vs aft on leaking"])
from msm_bench.analysis.table import read_table           read_table("logs/"): one row for every sample and key
from msm_bench.analysis.power import power                power(difference=0.05, arms=4): the rollouts that takes
from msm_bench.analysis.published import published        published("published:qwen3-32b"): the paper's numbers
from msm_bench.analysis.agreement import agreement        agreement("logs/", "logs-second-judge/"): kappa and alpha
from msm_bench.analysis.ppi import two_tier_logs          a cheap judge on all transcripts, a strong one on a part
python -m msm_bench.analysis.coverage                     how often the intervals hold the truth
"""
