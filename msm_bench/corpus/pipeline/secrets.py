"""Keeps keys out of everything that is written: messages of providers may quote the key that they refuse."""

import os
import re

_NAMES = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)", re.IGNORECASE)
_SHAPES = re.compile(r"\b(?:sk|pk|hf|xai|gsk|AIza|AKIA)[-_A-Za-z0-9*]{12,}|(?<=Bearer )\S{8,}")
_SHORTEST = 8


def without_keys(text: str) -> str:
    """The text with every key that this process knows of, and everything shaped like one, replaced by `(key)`."""
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "(key)")
    return _SHAPES.sub("(key)", text)
