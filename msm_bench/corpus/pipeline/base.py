"""What the making of documents and of chats have in common."""

from msm_bench.corpus.checks.duplicates import DuplicateScan
from msm_bench.corpus.checks.pieces import Piece
from msm_bench.corpus.pipeline.asking import Session
from msm_bench.corpus.pipeline.prompts import wordings
from msm_bench.corpus.pipeline.settings import Settings
from msm_bench.errors import WorkError
from msm_bench.specs.loading import Spec


class Stages:
    """Stages over one session, for one spec.

    Args:
        session: What asks.
        spec: The spec.
        settings: What is wanted.
    """

    def __init__(self, session: Session, spec: Spec, settings: Settings) -> None:
        self._session = session
        self._spec = spec
        self._settings = settings
        self._names = {"model_name": settings.model_name, "provider_name": settings.provider_name}
        self._seen = DuplicateScan()

    def _citing(self) -> str:
        return str(wordings()["citing"]["may" if self._spec.citable else "must_not"])

    def _is_new(self, text: str) -> bool:
        """Whether an idea or a question repeats none before it, to the letter or nearly."""
        return not list(self._seen.problems([Piece("idea", 1, "idea", "user", text)]))

    def _nothing(self, stage: str) -> WorkError:
        problem = f"The generator gave no usable {stage} for the spec '{self._spec.name}'."
        mend = f"Read what it wrote in {self._session.store.folder}, and use another generator (a small one: --simple)."
        return WorkError(problem, mend)
