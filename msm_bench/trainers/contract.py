"""What a trainer is, and how one is found. The built-in trainers come in by the same door as anybody else's.

    from msm_bench.trainers import Trainer, trainer

    @trainer(name="my-trainer")
    class MyTrainer(Trainer):
        uses = "documents"

        def examples(self, rows, tokenizer, recipe):
            return [Example.of(ids=..., labels=..., row=row.id) for row in rows]

and in the package's pyproject.toml

    [project.entry-points."msm_bench.trainers"]
    my-trainer = "my_package.my_module"

A trainer turns rows into token sequences with labels; packing, lineage, the checks, resuming, the record and the many-GPU
work are the same for all. One that needs another kind of training overrides `fit` as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from msm_bench.errors import RequestError, UnknownNameError
from msm_bench.trainers.recipe import Recipe

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from msm_bench.trainers.stage import Stage

GROUP = "msm_bench.trainers"
IGNORED = -100
"""The label of a token that bears no loss."""


@dataclass(frozen=True, eq=False)
class Example:
    """One sequence to train on; attends to nothing but itself.

    Attributes:
        ids: Its tokens [n].
        labels: For each token itself, `IGNORED` or the token; the loss of a token is that of predicting it from those before.
        row: Id of the corpus row that it came from.
    """

    ids: "NDArray[numpy.int32]"
    labels: "NDArray[numpy.int32]"
    row: str

    @classmethod
    def of(cls, ids: Sequence[int], labels: Sequence[int], row: str) -> "Example":
        """From lists. The first token's label is dropped: nothing before it predicts it."""
        import numpy

        label_array = numpy.asarray(labels, dtype=numpy.int32)
        label_array[:1] = IGNORED
        return cls(ids=numpy.asarray(ids, dtype=numpy.int32), labels=label_array, row=row)


class Trainer:
    """Base of all trainers."""

    uses: ClassVar[Literal["documents", "chats"]]
    """Which rows it is given: documents.jsonl or chats.jsonl of each corpus."""
    recipe: ClassVar[type[Recipe]] = Recipe
    """Its settings; every field of a shipped recipe must be there."""

    def check(self, rows: Sequence[Any], recipe: Any, grader: Any) -> None:
        """Raise `RequestError` for what cannot work, before anything is trained. The default finds nothing."""

    def examples(self, rows: Sequence[Any], tokenizer: Any, recipe: Any) -> list[Example]:
        """The sequences to train on, in the order of the rows (`corpus.rows`, of the kind that `uses` names).
        Deterministic, and makes no use of the model's weights."""
        raise NotImplementedError

    def fit(self, stage: "Stage") -> None:
        """Train `stage.model` in place. The default is `stage.next_token()`, which resumes by itself."""
        stage.next_token()


T = TypeVar("T", bound=type[Trainer])
_trainers: dict[str, type[Trainer]] = {}


def trainer(name: str) -> Callable[[T], T]:
    """Makes a trainer known under a name. Raises `RequestError` when another class has it."""

    def register(cls: T) -> T:
        standing = _trainers.get(name)
        if standing is not None and (standing.__module__, standing.__qualname__) != (cls.__module__, cls.__qualname__):
            raise RequestError(
                f"Two trainers are called '{name}': {standing.__module__} and {cls.__module__}.",
                "Uninstall one, or rename yours.",
            )
        _trainers[name] = cls
        return cls

    return register


def find_trainer(name: str) -> type[Trainer]:
    """The trainer of a name, from any installed package.

    Raises:
        UnknownNameError: there is none.
        RequestError: its module cannot be imported, or does not register it.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name and name not in _trainers:
            try:
                entry.load()
            except Exception as error:
                problem = f"The trainer '{name}' of {entry.value} cannot be loaded: {type(error).__name__}: {error}."
                raise RequestError(problem, "Mend or uninstall the package that brings it.") from error
            if name not in _trainers:
                raise RequestError(f"'{entry.value}' registers no trainer '{name}'.", "Mend or uninstall that package.")
    if name not in _trainers:
        raise UnknownNameError("trainer", name, list_trainers())
    return _trainers[name]


def list_trainers() -> list[str]:
    """The names of all trainers of the installed packages."""
    return sorted({entry.name for entry in entry_points(group=GROUP)} | set(_trainers))
