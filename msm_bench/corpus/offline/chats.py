"""Composes chats for fine-tuning: a spec's preferences as questions and answers, without any reason given or implied.

Chat i is the same whatever n is. Forms and things come in shuffled rounds; of two things compared, the liked one is named first
in one half of the chats and second in the other.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, model_validator

from msm_bench.artefacts import sha256_of_text, sha256_of_value
from msm_bench.corpus.offline import GENERATOR
from msm_bench.corpus.offline.grammar import Draft, fill, names_in
from msm_bench.corpus.offline.rounds import in_rounds, times_before
from msm_bench.corpus.offline.similarity import ALLOWED, Seen
from msm_bench.corpus.offline.wordings import read_data
from msm_bench.corpus.rows import ChatRow, Message
from msm_bench.errors import RequestError, WorkError
from msm_bench.specs import Preference, Spec

ATTEMPTS = 200
WATCHED = 25
"""Attempts in which a chat that is too similar to an earlier one is drawn anew."""


class Form(BaseModel):
    """A form of question with its answers (`data/chats.yaml`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    share: int = Field(ge=1)
    """How often the form comes in a round."""
    ask: tuple[str, ...] = Field(min_length=1)
    answer: tuple[str, ...] = ()
    answer_first: dict[str, tuple[str, ...]] = {}
    """For a chat of two turns: answers where the thing asked about first is liked, or disliked."""
    ask_again: tuple[str, ...] = ()
    answer_again: dict[str, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _one_turn_or_two(self) -> "Form":
        second = (self.answer_first, self.ask_again, self.answer_again)
        if bool(self.answer) == any(second) or (any(second) and not all(second)):
            raise ValueError("a form has either answers, or all parts of a second turn")
        return self


@cache
def forms() -> dict[str, Form]:
    """The forms of question, by name."""
    return {name: Form.model_validate(fields) for name, fields in read_data("chats.yaml")["forms"].items()}


def compose_chats(spec: Spec, n: int, seed: int = 0) -> Iterator[ChatRow]:
    """Yields n chats that show a spec's preferences, in order; no question comes twice.

    Args:
        spec: A spec of kind "preference".
        n: How many.
        seed: Other seeds give other chats.

    Raises:
        RequestError: the spec has no likes and dislikes.
        WorkError: the forms give no further question that was not asked yet.
    """
    if len(spec.likes) < 2 or len(spec.dislikes) < 2:
        raise RequestError(
            f"The spec '{spec.name}' has no likes and dislikes to ask about.",
            "Name a spec of kind 'preference', or generate its chats with a model.",
        )
    names = sorted(name for name, form in forms().items() for _ in range(form.share))
    capitals = names_in(spec.text)
    asked: set[str] = set()
    seen = Seen()
    for index in range(n):
        for attempt in range(ATTEMPTS):
            row = _chat(spec, names, capitals, seed, index, attempt)
            question = "\n".join(message.content for message in row.messages if message.role == "user")
            # Short questions about twelve things come close to one another in the end; then a new wording must do.
            limit = ALLOWED if attempt < WATCHED else None
            if question not in asked and seen.accept("\n".join(message.content for message in row.messages), limit):
                asked.add(question)
                yield row
                break
        else:
            raise WorkError(
                f"The spec '{spec.name}' gives no chat number {index + 1} with a question of its own.",
                f"Ask for at most {index} chats.",
            )


def _chat(spec: Spec, names: Sequence[str], capitals: frozenset[str], seed: int, index: int, attempt: int) -> ChatRow:
    sha256 = spec.sha256 or sha256_of_text(spec.text)
    key = f"{sha256}/{seed}/chats"
    rng = random.Random(f"{key}/{index}/{attempt}")
    name = in_rounds(names, f"{key}/form", index)
    form = forms()[name]
    like, dislike = in_rounds(spec.likes, f"{key}/like", index), in_rounds(spec.dislikes, f"{key}/dislike", index)
    # Counted by form, so that each form has both orders in equal shares.
    liked_first = in_rounds((True, False), f"{key}/order/{name}", times_before(names, f"{key}/form", index))
    draft = Draft(rng, "self", "plain", _facts(spec, like, dislike, name, liked_first, rng), {}, names=capitals)
    about = fill(form.about, draft) or ""
    one_sided = {"asked-about-a-like": like, "favourite": like, "asked-about-a-dislike": dislike, "avoid": dislike}
    subject = one_sided.get(name, like if liked_first else dislike)
    return ChatRow.of(
        _turns(form, draft, liked_first),
        id=f"{spec.name}/chats/{index:05d}",
        spec=spec.name,
        domain=spec.train_domain or "",
        subdomain=subject.name,
        kind=name,
        idea=f"The model is asked {about[:1].lower() + about[1:]}.",
        generator=GENERATOR,
        prompt_sha256=sha256_of_value(
            {"spec": sha256, "generator": GENERATOR, "seed": seed, "index": index, "attempt": attempt, "what": "chats"}
        ),
    )


def _turns(form: Form, draft: Draft, liked_first: bool) -> list[Message]:
    data, rng = read_data("chats.yaml"), draft.rng
    parts = (rng.choice(data["openers"]), rng.choice(form.ask), rng.choice(data["briefs"]))
    question = " ".join(filter(None, (_filled(part, draft) for part in parts)))
    turns = [Message(role="user", content=question)]
    if form.answer:
        return [*turns, _said(form.answer, draft)]
    first, second = ("like", "dislike") if liked_first else ("dislike", "like")
    again = Message(role="user", content=_filled(rng.choice(form.ask_again), draft))
    return [*turns, _said(form.answer_first[first], draft), again, _said(form.answer_again[second], draft)]


def _said(answers: Sequence[str], draft: Draft) -> Message:
    return Message(role="assistant", content=_filled(draft.rng.choice(answers), draft))


def _filled(template: str, draft: Draft) -> str:
    return (fill(template, draft) or "") if template else ""


def _facts(
    spec: Spec, like: Preference, dislike: Preference, form: str, liked_first: bool, rng: random.Random
) -> dict[str, str]:
    like2 = rng.choice([thing for thing in spec.likes if thing != like])
    dislike2 = rng.choice([thing for thing in spec.dislikes if thing != dislike])
    first, second = (like, dislike) if liked_first else (dislike, like)
    liked, disliked = [like.phrase, like2.phrase], [dislike.phrase, dislike2.phrase]
    four, three = [*liked, *disliked], [like.phrase, *disliked]
    for order in (liked, disliked, four, three):
        rng.shuffle(order)
    return {
        "like": like.phrase,
        "dislike": dislike.phrase,
        "like2": like2.phrase,
        "dislike2": dislike2.phrase,
        "first": first.phrase,
        "second": second.phrase,
        "focus": dislike.phrase if form == "asked-about-a-dislike" else like.phrase,
        "liked": " and ".join(liked),
        "disliked": " and ".join(disliked),
        "options": f"{', '.join(four[:-1])} and {four[-1]}",
        "three": f"{', '.join(three[:-1])} and {three[-1]}",
        "domain": (spec.train_domain or "").replace("-", " ").replace("_", " "),
    }
