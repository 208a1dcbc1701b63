"""Drawing tokens: the right distribution, and the same tokens for the same seed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from msm_bench.engine.engine import Engine
from msm_bench.engine.sampling import Noise, Sampling, next_tokens, noise_key

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -2.0, -torch.inf, 1.5])


def chi_square(counts: Counter[int], probabilities: torch.Tensor, draws: int) -> float:
    """Pearson's statistic; a token of probability 0 that was drawn makes it infinite."""
    expected = probabilities * draws
    seen = torch.tensor([float(counts[token]) for token in range(len(probabilities))])
    assert (seen[expected == 0] == 0).all()
    kept = expected > 0
    return float(((seen - expected)[kept] ** 2 / expected[kept]).sum())


def truncated(temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None) -> torch.Tensor:
    """The distribution by the definition, one token after another."""
    probabilities = torch.softmax(LOGITS / temperature, -1)
    order = probabilities.argsort(descending=True)
    kept = order[: top_k or len(order)]
    share = probabilities[kept] / probabilities[kept].sum()
    count = next(n for n in range(1, len(kept) + 1) if share[:n].sum() >= top_p - 1e-6 or n == len(kept))
    result = torch.zeros_like(probabilities)
    result[kept[:count]] = probabilities[kept[:count]] / probabilities[kept[:count]].sum()
    return result


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0),
        Sampling(top_k=3),
        Sampling(top_p=0.8),
        Sampling(top_p=0.05),
        Sampling(temperature=2.0, top_k=5, top_p=0.7),
    ],
)
def test_drawn_in_proportion(sampling: Sampling) -> None:
    draws, rows = 20_000, 100
    noises = [Noise(noise_key(1, [], row)) for row in range(rows)]
    counts: Counter[int] = Counter()
    for _ in range(draws // rows):
        counts.update(next_tokens(LOGITS.expand(rows, -1), [sampling] * rows, noises, [Counter()] * rows).tolist())
    expected = truncated(sampling.temperature, sampling.top_p, sampling.top_k)
    # 99.99% point of chi-square with 7 degrees of freedom; with fewer the bound is only wider.
    assert chi_square(counts, expected, draws) < 29.9


def test_rows_of_all_kinds_in_one_batch() -> None:
    kinds = [Sampling(temperature=0), Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(temperature=1e-4)]
    noises = [Noise(noise_key(1, [], row)) for row in range(len(kinds))]
    assert next_tokens(LOGITS.expand(4, -1), kinds, noises, [Counter()] * 4).tolist() == [0, 0, 0, 0]


def test_nucleus_wider_than_the_first_guess() -> None:
    flat = torch.zeros(1, 5000)
    noise = Noise(noise_key(2, []))
    drawn = [next_tokens(flat, [Sampling(top_p=0.9)], [noise], [Counter()]).item() for _ in range(300)]
    assert len(set(drawn)) > 250 and max(drawn) > 1024


def test_penalties_and_biases_change_the_logits() -> None:
    def greedy(**changes: object) -> int:
        sampling = replace(Sampling(temperature=0), **changes)  # type: ignore[arg-type]
        return int(next_tokens(LOGITS[None], [sampling], [Noise(b"\0" * 16)], [Counter({0: 2})]))

    assert greedy() == 0
    assert greedy(presence_penalty=0.4) == 0
    assert greedy(presence_penalty=0.6) == 7
    assert greedy(frequency_penalty=0.3) == 7
    assert greedy(logit_bias={4: 3.5}) == 4
    assert greedy(logit_bias={0: -100, 7: -100}) == 1


def test_noise_depends_on_everything_in_its_key() -> None:
    base = noise_key(1, [1, 2], "sample", 1, 1, 0)
    others = [
        noise_key(2, [1, 2], "sample", 1, 1, 0),
        noise_key(1, [1, 3], "sample", 1, 1, 0),
        noise_key(1, [1, 2], "sample", 2, 1, 0),
        noise_key(1, [1, 2], "sample", 1, 2, 0),
        noise_key(1, [1, 2], "sample", 1, 1, 1),
    ]
    assert len({base, *others}) == 6
    assert base == noise_key(1, [1, 2], "sample", 1, 1, 0)
    assert noise_key(None, [1, 2]) != noise_key(None, [1, 2])


def test_model_is_sampled_in_proportion(engine_of: Callable[..., Engine]) -> None:
    """Thousands of first tokens of a whole model against its softmax."""
    engine = engine_of("qwen3")
    prompt = list(range(20, 90))
    draws = 3000
    futures = [
        engine.generate(prompt, Sampling(temperature=0.7, max_tokens=1, key=noise_key(5, prompt, draw)))
        for draw in range(draws)
    ]
    counts = Counter(future.result(timeout=120).tokens[0] for future in futures)
    runner = engine._runner
    scores = engine.score(prompt, [[token] for token in range(runner.vocabulary)]).result(timeout=120)
    logprobs = torch.tensor([score.logprob_sum for score in scores])
    probabilities = torch.softmax(logprobs / 0.7, -1)
    common = probabilities * draws >= 5
    rest = Counter({0: sum(counts[token] for token in range(len(common)) if not common[token])})
    grouped = torch.cat([probabilities[~common].sum()[None], probabilities[common]])
    for index, token in enumerate(common.nonzero()[:, 0].tolist()):
        rest[index + 1] = counts[token]
    freedom = len(grouped) - 1
    assert freedom >= 5
    assert chi_square(rest, grouped, draws) < freedom + 5 * (2 * freedom) ** 0.5


def test_same_seed_same_tokens_whatever_the_batch(engine_of: Callable[..., Engine]) -> None:
    engine = engine_of()
    prompts = [list(range(20 + index, 100 + 3 * index)) for index in range(6)]

    def sampling(index: int) -> Sampling:
        return Sampling(max_tokens=30, key=noise_key(7, prompts[index], index))

    together = [engine.generate(prompts[index], sampling(index)) for index in range(6)]
    batched = [future.result().tokens for future in together]
    alone = [engine.generate(prompts[index], sampling(index)).result().tokens for index in reversed(range(6))]
    assert batched == alone[::-1]
    assert len({tokens for tokens in batched}) == 6
