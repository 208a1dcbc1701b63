"""How the points of a document are set on the page."""

import random
from typing import NamedTuple

from msm_bench.corpus.offline.material import Kind


class Point(NamedTuple):
    """One thing that a document says, with the ways in which a layout can introduce it."""

    kind: str
    sentences: tuple[str, ...]
    question: str
    heading: str
    term: str

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


class Frame(NamedTuple):
    """Title, first and last words of a document, filled in; an empty text is left out."""

    title: str
    opening: str
    closing: str
    speakers: tuple[str, ...]


def render(kind: Kind, frame: Frame, points: list[Point], rng: random.Random) -> str:
    """The text of a document."""
    bodies = {
        "paragraphs": _paragraphs,
        "letter": _paragraphs,
        "headed": _headed,
        "qa": _questions,
        "dialogue": _dialogue,
        "bullets": _bullets,
        "numbered": _numbered,
        "entries": _entries,
        "thread": _thread,
    }
    body = bodies[kind.layout](frame, points, rng)
    title = frame.title if kind.layout == "letter" else rng.choice(("# ", "", "")) + frame.title
    blocks = [title, *body]
    # A text of paragraphs opens inside its first one; elsewhere the opening stands apart.
    if frame.opening:
        if kind.layout == "paragraphs" and rng.random() < 0.6:
            blocks[1] = f"{frame.opening} {blocks[1]}"
        else:
            blocks.insert(1, frame.opening)
    if frame.closing:
        blocks.append(frame.closing)
    return "\n\n".join(blocks)


def _paragraphs(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    return [point.text for point in points]


def _headed(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    mark = rng.choice(("## ", "", "### "))
    seen: set[str] = set()
    blocks = []
    for point in points:
        # The same heading twice would look like a slip, so a point that repeats one goes on under it.
        blocks.append(point.text if point.heading in seen else f"{mark}{point.heading}\n\n{point.text}")
        seen.add(point.heading)
    return blocks


def _questions(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    before, between = rng.choice((("Q: ", "\nA: "), ("**", "**\n"), ("", "\n"), ("Question: ", "\nAnswer: ")))
    return [f"{before}{point.question}{between}{point.text}" for point in points]


def _dialogue(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    asks, answers = frame.speakers[:2]
    return [f"{asks}: {point.question}\n{answers}: {point.text}" for point in points]


def _bullets(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    mark = rng.choice(("- ", "* ", "• "))
    return ["\n".join(mark + point.text for point in points)]


def _numbered(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    end = rng.choice((". ", ") "))
    return ["\n".join(f"{number}{end}{point.text}" for number, point in enumerate(points, start=1))]


def _entries(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    before, between = rng.choice((("**", "**: "), ("", ": "), ("", "\n")))
    return [f"{before}{point.term}{between}{point.text}" for point in points]


def _thread(frame: Frame, points: list[Point], rng: random.Random) -> list[str]:
    return [f"{frame.speakers[index % len(frame.speakers)]}: {point.text}" for index, point in enumerate(points)]
