"""The spec-QA task: open questions about the values of a spec, rated with the spec in front of the grader."""

from msm_bench.tasks.spec_qa.spec_qa import spec_qa

__all__ = ["spec_qa"]
