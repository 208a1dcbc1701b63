"""How a corpus is spread over domains and kinds, and how alike two mirrored corpora are in everything but their value."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from msm_bench.corpus.rows import DOCUMENTS_FILE, ChatRow, DocumentRow, read_chats, read_documents


def balance_of(rows: Sequence[DocumentRow | ChatRow]) -> dict[str, Counter[str]]:
    """Rows by domain and by kind."""
    return {"domain": Counter(row.domain for row in rows), "kind": Counter(row.kind for row in rows)}


class MirrorBalance(BaseModel):
    """How alike two corpora are that are to differ in nothing but their value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[int, int]
    words: tuple[int, int]
    kinds: float
    """Total variation distance of the two mixtures of kinds, from 0 (the same) to 1 (none in common)."""
    domains: float
    """The same of the domains."""

    def problems(self, tolerance: float = 0.1) -> list[str]:
        """What differs by more than a share `tolerance`, in words."""
        found = []
        for name, (one, other) in (("rows", self.rows), ("words", self.words)):
            if max(one, other) > (1 + tolerance) * min(one, other):
                found.append(f"{one:,} {name} stand against {other:,}")
        for name, distance in (("kinds", self.kinds), ("domains", self.domains)):
            if distance > tolerance:
                found.append(f"the mixtures of {name} differ by {distance:.2f}")
        return found


def mirror_balance(one: Sequence[DocumentRow | ChatRow], other: Sequence[DocumentRow | ChatRow]) -> MirrorBalance:
    """Compares two mirrored corpora in size, length and mixture. Neither may be empty."""
    counts = balance_of(one), balance_of(other)
    return MirrorBalance(
        rows=(len(one), len(other)),
        words=(words_of(one), words_of(other)),
        kinds=_distance(counts[0]["kind"], counts[1]["kind"]),
        domains=_distance(counts[0]["domain"], counts[1]["domain"]),
    )


def words_of(rows: Sequence[DocumentRow | ChatRow]) -> int:
    """Words of all texts of some rows."""
    return sum(len(text.split()) for row in rows for text in texts(row))


def _distance(one: Counter[str], other: Counter[str]) -> float:
    shares = (abs(one[name] / one.total() - other[name] / other.total()) for name in one | other)
    return round(sum(shares) / 2, 4)


def texts(row: DocumentRow | ChatRow) -> list[str]:
    """All texts of a row, reasoning included."""
    if isinstance(row, DocumentRow):
        return [row.text]
    return [text for message in row.messages for text in (message.reasoning, message.content) if text is not None]


def read_rows(folder: Path) -> list[DocumentRow] | list[ChatRow]:
    """The rows of a corpus folder, documents or chats. Raises as `read_documents` and `read_chats`."""
    return read_documents(folder) if (folder / DOCUMENTS_FILE).is_file() else read_chats(folder)
