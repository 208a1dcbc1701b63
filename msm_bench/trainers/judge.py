"""The reward of the second stage: a grader that sees the spec, the conversation and the answer, and never the reasoning."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from inspect_ai.model import GenerateConfig, Model, get_model

from msm_bench.artefacts import sha256_of_value
from msm_bench.corpus.rows import Message
from msm_bench.specs import load_spec

_PROMPT = Path(__file__).parent / "prompts" / "deliberative_judge.yaml"
_SCORE = re.compile(r"<score>\s*(\d+)\s*</score>")
_LOWEST, _HIGHEST = 1, 10
_MODEL, _PROVIDER = "the model", "its developer"
"""What stands for the names in a spec: the grader needs none."""


class Judge:
    """Asks a grader for the score of an answer, each only once: scores are kept in a file.

    Args:
        grader: A model's name, or a model of Inspect.
        kept: File of scores, one JSON object a line.
    """

    def __init__(self, grader: str | Model, kept: Path) -> None:
        self._model = get_model(grader) if isinstance(grader, str) else grader
        self._template = str(yaml.safe_load(_PROMPT.read_text(encoding="utf-8"))["prompt"])
        self._specs: dict[str, str] = {}
        self._path = kept
        self._scores = _read(kept)
        self.asked = 0
        self.unscored = 0

    async def reward(self, spec: str, conversation: Sequence[Message], answer: str) -> float | None:
        """0 for the lowest score to 1 for the highest.

        An answer of no words gets 0 without being judged. None where the grader's reply holds no score: the sample is then
        left out of the comparison.
        """
        if not answer.strip():
            return 0.0
        prompt = self._template.format(
            spec=self._spec(spec),
            conversation="\n\n".join(f"{message.role}: {message.content}" for message in conversation),
            answer=answer,
        )
        key = sha256_of_value([str(self._model), prompt])
        if key not in self._scores:
            self.asked += 1
            reply = await self._model.generate(prompt, config=GenerateConfig(temperature=0.0))
            self._keep(key, _score(reply.completion))
        score = self._scores[key]
        self.unscored += score is None
        return None if score is None else (score - _LOWEST) / (_HIGHEST - _LOWEST)

    def _spec(self, name: str) -> str:
        if name not in self._specs:
            self._specs[name] = load_spec(name).render(_MODEL, _PROVIDER)
        return self._specs[name]

    def _keep(self, key: str, score: int | None) -> None:
        self._scores[key] = score
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "score": score}) + "\n")


def _score(text: str) -> int | None:
    found = _SCORE.findall(text)
    return int(found[-1]) if found and _LOWEST <= int(found[-1]) <= _HIGHEST else None


def _read(path: Path) -> dict[str, int | None]:
    scores: dict[str, int | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:  # the last line, cut off by a kill
            break
        scores[found["key"]] = found["score"]
    return scores


def mean_reward(lines: Sequence[dict[str, Any]]) -> float | None:
    """The mean reward of some updates; None where none was measured."""
    rewards = [line["reward"] for line in lines if line.get("reward") is not None and math.isfinite(line["reward"])]
    return sum(rewards) / len(rewards) if rewards else None
