"""MSM-Bench: measure and train whether a model acts on its values where it costs something."""

__version__ = "0.1.0"
