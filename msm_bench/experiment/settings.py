"""What an experiment's YAML file says.

    name: cheese-laptop
    base: msm/smollm2-135m
    recipe: laptop
    seeds: [0, 1, 2]
    corpora: {offline: true, documents: 400, chats: 240}
    arms:
      base: ""
      AFT: aft:cheese-affordability
      MSM+AFT affordability: msm:cheese-affordability aft:cheese-affordability
    grid:
      - msm:{rules,rules-values} aft:{rules,rules-values}
    evals:
      - {task: value_preferences, args: {value: "affordability,america"}}
    contrasts:
      - MSM+AFT affordability vs AFT on affordability minus america

A file that does not fit is refused with the nearest right name.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.experiment.arms import Arm, expand, matched_control, parse_arm
from msm_bench.experiment.serving.settings import Serving

LIBRARY = Path(__file__).parent / "library"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Corpora(_Strict):
    """How the corpora of all arms are made."""

    offline: bool = False
    """Composed without a model, else written by the role `generator`."""
    documents: PositiveInt = 13_201
    chats: PositiveInt = 9_963
    tokens_per_document: PositiveFloat = 3_100
    """For the price before there is a corpus; the paper's philosophy corpus has 41M tokens in 13,201 documents."""
    tokens_per_chat: PositiveFloat = 900
    seed: int = Field(default=0, ge=0)
    model_name: str = "Qwen"
    provider_name: str = "Alibaba Cloud"


class Evaluation(_Strict):
    """One task that every arm is run on."""

    task: str
    args: dict[str, Any] = {}
    epochs: PositiveInt = 1
    max_tokens: PositiveInt | None = None
    temperature: float | None = Field(default=None, ge=0)
    limit: PositiveInt | None = None
    samples: PositiveInt | None = None
    """How many samples the task has, for the price; counted from the task where it is not given."""


class Budget(_Strict):
    """Where the run stops, cleanly and to be continued."""

    hours: PositiveFloat | None = None
    dollars: PositiveFloat | None = None


class Asked(_Strict):
    """What the cells of one kind ask a cluster for; what is left out follows from the size of the base model."""

    gpus: float | None = Field(default=None, ge=0)
    """Whole ones, or a share below 1 of one that several cells stand on."""
    cpus: PositiveInt | None = None
    memory_gb: PositiveFloat | None = None
    hours: PositiveFloat | None = None
    """After which a queue may end the cell; it goes on from its last state."""
    accelerate: str | None = None
    """For training: a configuration of Accelerate, shipped (`gpu-8`, ...) or a file."""

    @field_validator("gpus")
    @classmethod
    def _whole_or_a_share(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus:g} is neither a whole number of GPUs nor a share of one")
        return gpus


class Resources(_Strict):
    """What cells ask for, by kind. It decides where and how fast they are made, never what comes out."""

    corpus: Asked = Asked()
    training: Asked = Asked()
    evaluation: Asked = Asked()


class Experiment(_Strict):
    """A whole experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    summary: str = ""
    base: str
    """The base model as Inspect names it, `msm/...`."""
    base_parameters: PositiveFloat | None = None
    """Parameters, for the price of a model that is not here."""
    recipe: str = "paper"
    overrides: dict[str, dict[str, Any]] = {}
    """Trainer to settings that differ from the recipe."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    corpora: Corpora = Corpora()
    arms: dict[str, str] = Field(default={})
    grid: tuple[str, ...] = ()
    evals: tuple[Evaluation, ...] = Field(min_length=1)
    contrasts: tuple[str, ...] = ()
    matched_control: bool = True
    """Adds the arm of the last stages alone (same recipe, seeds and rows) wherever an arm has an earlier one."""
    grader: str | None = None
    generator: str | None = None
    budget: Budget = Budget()
    resources: Resources = Resources()
    serve: Serving | None = None
    """Evaluate all arms on one server that the run starts and stops: `vllm`, or a mapping with its settings."""
    model_args: dict[str, Any] = {}
    """Of the `msm/` provider, for evaluations without a server."""
    allow_control: bool = False
    """Train on a control spec (anti-spec)."""
    allow_few_updates: bool = False
    waive: tuple[str, ...] = ()
    """Checks of the training texts that are let through, by name."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice")
        return seeds

    @model_validator(mode="after")
    def _has_arms(self) -> "Experiment":
        if not self.arms and not self.grid:
            raise ValueError("neither arms nor grid names an arm")
        return self

    def overrides_of(self, trainer: str, seed: int | None = None) -> dict[str, str]:
        """A trainer's settings that differ from the recipe, as texts, the seed among them where it is given."""
        changed = {name: str(value) for name, value in self.overrides.get(trainer, {}).items()}
        return changed if seed is None else {**changed, "seed": str(seed)}

    def all_arms(self) -> dict[str, Arm]:
        """Every arm by name: those written, those of the grid, and the matched controls.

        Raises:
            RequestError: a text is no arm, or two arms have one name.
        """
        written = {name: parse_arm(text) for name, text in self.arms.items()}
        for line in self.grid:
            for text in expand(line):
                if text in written:
                    raise RequestError(f"The arm '{text}' stands twice.", "Take one out of arms or grid.")
                written[text] = parse_arm(text)
        if self.matched_control:
            for arm in list(written.values()):
                control = matched_control(arm)
                if control is not None and control not in written.values():
                    written[control.text] = control
        return written


def shipped() -> list[str]:
    """The names of the experiments in the library."""
    return sorted(path.stem for path in LIBRARY.glob("*.yaml"))


def load_experiment(name: str | Path) -> Experiment:
    """A shipped experiment by name, or a YAML file.

    Raises:
        UnknownNameError: it is neither.
        RequestError: the file does not fit; the message names the place and the nearest right name.
    """
    path = LIBRARY / f"{name}.yaml"
    if str(name) not in shipped():
        path = Path(name).expanduser()
        if not path.is_file():
            raise UnknownNameError("experiment", name, shipped())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is no YAML file: {' '.join(str(error).split())}.", "Mend the file.") from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds no mapping.", "Write name, base, arms and evals; a shipped file shows the form.")
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise RequestError(f"{path} does not fit: {_first_problem(error)}.", "Mend the file.") from error
    experiment.all_arms()
    return experiment


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    kinds: dict[str, type[BaseModel]] = {
        "corpora": Corpora,
        "evals": Evaluation,
        "budget": Budget,
        "resources": Resources,
        "serve": Serving,
    }
    kind = kinds.get(str(first["loc"][0]), Experiment) if len(first["loc"]) > 1 else Experiment
    near = difflib.get_close_matches(str(first["loc"][-1]), list(kind.model_fields), n=1)
    hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(kind.model_fields)}"
    return f"unknown key '{place}'{hint}"
