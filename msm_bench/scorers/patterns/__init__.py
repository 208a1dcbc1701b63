"""Why a model did it: reasoning patterns, labellers that find them, and the gates that say which labels can be believed.

taxonomy.yaml   the eighteen patterns; a new pattern is a new entry
labelled/       passages and transcripts with known labels, and the card that says what they are
judge           a labeller that asks a grader
local           a labeller that asks nobody: scikit-learn on sentences
gates           how far a labeller agrees with the labelled set, pattern by pattern
fitting         the local labeller, fitted and cross-validated; from_logs fits it to a judge's labels
free_reasons    exploring without a list: reasons in a grader's own words; proposals clusters them into entries
"""

from msm_bench.scorers.patterns.labels import Label, Labelling
from msm_bench.scorers.patterns.taxonomy import Pattern, Taxonomy, load_taxonomy

__all__ = ["Label", "Labelling", "Pattern", "Taxonomy", "load_taxonomy"]
