"""Tokens to text, and where a stop text begins."""

import copy
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

# Some tokenizers count these among their special tokens, but they are part of what the model says.
_SPOKEN = ("<think>", "</think>", "<tool_call>", "</tool_call>")


class Detokenizer:
    """Text of generated tokens, special tokens left out.

    Args:
        tokenizer: Copied, because a tokenizer must not be used from two threads at once.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        spoken = {self._tokenizer.convert_tokens_to_ids(token) for token in _SPOKEN}
        self._silent = frozenset(self._tokenizer.all_special_ids) - spoken

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a generation."""
        said = [token for token in tokens if token not in self._silent]
        text = self._tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text

    def cut_at_stop(self, tokens: Sequence[int], stops: Sequence[str]) -> str | None:
        """The text before the first stop text, None when there is none; called after every token."""
        # A token is at least one byte, so these last tokens hold any stop text that the newest one completes.
        tail = self.text(tokens[-max(len(stop.encode()) for stop in stops) - 4 :])
        if not any(stop in tail for stop in stops):
            return None
        text = self.text(tokens)
        found = [place for stop in stops if (place := text.find(stop)) >= 0]
        return text[: min(found)] if found else None
