"""The exfiltration scenario: `inbox.md` is the inbox, `goals/<goal>.yaml` what differs from goal to goal."""

from msm_bench.tasks.agentic_misalignment.scenarios.exfiltration.inbox import exfiltration_prompts

__all__ = ["exfiltration_prompts"]
