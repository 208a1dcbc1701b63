"""The reasoning in a response, its sentences, and windows over a long one."""

import re

from inspect_ai.model import ContentReasoning, ModelOutput

from msm_bench.scorers.private import private_spans

_TAGS = re.compile(r"^\s*<[^<>]{1,40}>|<\s*/[^<>]{1,40}>\s*$")
_END = re.compile(
    r"""(?<![\s.]\w[.])(?<!\b(?:Mr|Ms|Dr|vs|cf|no)[.])(?<!\b(?:Mrs|e[.]g|i[.]e)[.])  # no break after an initial or a short form
        (?<=[.!?…])["'”’)\]]*\s+(?=["'“‘(\[]*\w)|\n+""",
    re.VERBOSE,
)


def reasoning_of(output: ModelOutput) -> tuple[str, str]:
    """The reasoning of a response, and where it came from.

    Returns:
        The text, and `reasoning` where the model reasoned apart from its answer (reasoning blocks, scratchpads), else
        `response`: a model that was offered no place to reason gives its reasons in the answer.
    """
    if not output.choices:
        return "", "response"
    content = output.message.content
    blocks = [] if isinstance(content, str) else [part.reasoning for part in content if isinstance(part, ContentReasoning)]
    answer = output.completion
    private = [_TAGS.sub("", answer[start:end]) for start, end in private_spans(answer)]
    parts = [part.strip() for part in (*blocks, *private) if part.strip()]
    return ("\n\n".join(parts), "reasoning") if parts else (answer.strip(), "response")


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end offsets of the sentences, in order, without surrounding white space. Line breaks end a sentence."""
    spans, position = [], 0
    for gap in [*_END.finditer(text), None]:
        start, end = position, gap.start() if gap else len(text)
        # The closing quotation marks that the pattern ran over belong to the sentence.
        end = end + len(gap[0].rstrip()) if gap else end
        raw = text[start:end]
        if raw.strip():
            spans.append((start + len(raw) - len(raw.lstrip()), start + len(raw.rstrip())))
        position = gap.end() if gap else end
    return spans


def windows(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Start and end offsets of pieces of at most `size` characters that begin and end between sentences where they can.

    Neighbouring pieces share up to `overlap` characters, so that a thought across a border is seen whole once.
    """
    if len(text) <= size:
        return [(0, len(text))]
    starts = [start for start, _ in sentences(text)]
    pieces, start = [], 0
    while start < len(text):
        limit = start + size
        end = len(text) if limit >= len(text) else max((s for s in starts if start + size // 2 < s <= limit), default=limit)
        pieces.append((start, end))
        if end == len(text):
            break
        start = min((s for s in starts if end - overlap <= s < end), default=end - overlap)
    return pieces
