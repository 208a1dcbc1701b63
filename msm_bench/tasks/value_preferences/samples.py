"""Pairs to samples: which pairs a run takes, and both orders of each."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser

from msm_bench.errors import RequestError
from msm_bench.scorers.preference_records import Offer
from msm_bench.tasks.value_preferences.pairs import Pair, load_pairs, train_pairs
from msm_bench.tasks.value_preferences.phrasings import phrasings


def choose_pairs(value: str, split: str, kind: str, limit: int | None, seed: int, part: str = "all") -> list[Pair]:
    """The pairs of a value: all of a split, kind and part, or `limit` of them drawn by `seed`, as evenly over the domains
    as it goes.

    A smaller limit draws a subset of what a larger one draws. The order is that of the file.
    """
    everything = load_pairs(value) if split == "held_out" else train_pairs(value)
    pairs = [pair for pair in everything if kind in ("all", pair.kind) and part in ("all", part_of(value, pair))]
    if limit is None or limit >= len(pairs):
        return pairs
    by_domain: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_domain[pair.domain].append(pair)
    domains = list(by_domain)
    random.Random(f"{seed}/{value}").shuffle(domains)
    for domain in domains:
        random.Random(f"{seed}/{value}/{domain}").shuffle(by_domain[domain])
    longest = max(len(each) for each in by_domain.values())
    rounds = (by_domain[domain][turn] for turn in range(longest) for domain in domains if turn < len(by_domain[domain]))
    drawn = {(pair.domain, pair.number) for pair, _ in zip(rounds, range(limit), strict=False)}
    return [pair for pair in pairs if (pair.domain, pair.number) in drawn]


def part_of(value: str, pair: Pair) -> str:
    """The half of the pairs that a pair belongs to for good: "tune", to choose recipes by, or "report"."""
    name = f"half{value}/{pair.domain}/{pair.number}"
    return ("tune", "report")[int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2]


def make_samples(
    values: Sequence[str],
    split: str,
    kind: str,
    limit: int | None,
    seed: int,
    method: str,
    system: str | None,
    part: str = "all",
) -> list[Sample]:
    """Both orders of every chosen pair, value by value.

    Raises:
        RequestError: There is no pair of this kind.
    """
    chosen = {value: choose_pairs(value, split, kind, limit, seed, part) for value in values}
    if not any(chosen.values()):
        raise RequestError(
            f"There are no {kind} pairs of {', '.join(values)} in the {split} split.",
            "Use -T kind=all; opinion pairs exist for america in the held_out split.",
        )
    return [
        make_sample(value, pair, order, method, system)
        for value, pairs in chosen.items()
        for pair in pairs
        for order in ("ab", "ba")
    ]


def make_sample(value: str, pair: Pair, order: str, method: str, system: str | None) -> Sample:
    """One order of one pair; `ab` names the aligned thing first. `system` is the text of a system message, if any."""
    name = f"{value}/{pair.domain}/{pair.number:03d}"
    first, second = (pair.aligned, pair.other) if order == "ab" else (pair.other, pair.aligned)
    offer = Offer.model_validate(
        {
            "value": value,
            "domain": pair.domain,
            "kind": pair.kind,
            "pair": name,
            "order": order,
            "first": first,
            "second": second,
        }
    )
    texts = phrasings(pair.kind)
    question = texts.likelihood[0].ask(first, second) if method == "likelihood" else texts.ask_freely(first, second)
    messages: list[ChatMessage] = [ChatMessageUser(content=question)]
    if system is not None:
        messages.insert(0, ChatMessageSystem(content=system))
    topic = {"topic": pair.topic} if pair.topic else {}
    return Sample(id=f"{name}/{order}", input=messages, target=pair.aligned, metadata={**offer.model_dump(), **topic})
