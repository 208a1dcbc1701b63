"""Specs: which values a model should hold and why, each a folder with `spec.md` (text) and `spec.yaml` (fields)."""

from msm_bench.specs.loading import Preference, RuleEntry, Section, Spec, list_specs, load_spec

__all__ = ["Preference", "RuleEntry", "Section", "Spec", "list_specs", "load_spec"]
