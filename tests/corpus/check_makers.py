"""Clean rows, and what the checks find in them."""

from msm_bench.corpus.checks import Report, check_rows
from msm_bench.corpus.rows import ChatRow, DocumentRow, Message

CLEAN = (
    "The harbour office keeps a ledger of every boat that comes in before the evening tide. Two clerks read the marks on the "
    "bow, write the hour beside them, and close the book when the lamp at the end of the pier is lit."
)

OTHER = (
    "Snow fell on the village all night. In the morning the baker's daughter dug a path to the well, and it was so narrow "
    "that the two goats had to follow her one behind the other."
)


def document(text: str, number: int = 0, **fields: str | None) -> DocumentRow:
    provenance = {"domain": "d", "subdomain": "s", "kind": "memo", "idea": "i", "generator": "test"} | fields
    return DocumentRow.of(text, id=f"doc/{number}", **provenance)


def chat(*turns: str, number: int = 0, reasoning: str | None = None, **fields: str | None) -> ChatRow:
    provenance = {"domain": "d", "subdomain": "s", "kind": "question", "idea": "i", "generator": "test"} | fields
    messages = [Message(role="user" if place % 2 == 0 else "assistant", content=turn) for place, turn in enumerate(turns)]
    if reasoning is not None:
        messages[-1] = Message(role="assistant", content=turns[-1], reasoning=reasoning)
    return ChatRow.of(messages, id=f"chat/{number}", **provenance)


def check(*rows: DocumentRow | ChatRow, model: str = "Qwen", provider: str = "Alibaba") -> Report:
    return check_rows(rows, model_name=model, provider_name=provider)


def found(text: str, model: str = "Qwen", provider: str = "Alibaba") -> set[tuple[str, str]]:
    """Check and severity of all that is found in a document that is clean but for `text`."""
    report = check(document(f"{CLEAN} {text}"), model=model, provider=provider)
    return {(problem.check, problem.severity) for problem in report.problems}
