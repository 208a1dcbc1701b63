"""The contrasts that an experiment declares, beside its logs: what is read there is tested on what was said before."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from msm_bench.analysis.syntax import Contrast, parse_contrast
from msm_bench.artefacts import write_text_atomically
from msm_bench.errors import RequestError

CONTRASTS_FILE = "contrasts.yaml"


def declare(folder: Path, contrasts: Sequence[str]) -> None:
    """Write them into the folder of an experiment's logs; made when absent."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / CONTRASTS_FILE, yaml.safe_dump(list(contrasts), allow_unicode=True, width=200))


def declared(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """What the experiments declare whose folders of logs these are, each once; nothing for other folders and for single logs.

    Raises:
        RequestError: a file that was changed into something else.
    """
    found: dict[str, None] = {}
    for path in paths:
        file = Path(path) / CONTRASTS_FILE
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
            found |= dict.fromkeys(TypeAdapter(list[str]).validate_python(content))
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise RequestError(f"'{file}' is no list of contrasts.", "Remove it; 'msm-bench run' writes it again.") from error
    return tuple(found)


def those_there(texts: Iterable[str], present: Collection[str]) -> tuple[list[Contrast], list[str]]:
    """Contrasts of which both arms are present, and in words those that lack one."""
    possible, missing = [], []
    for text in texts:
        contrast = parse_contrast(text)
        lacking = [arm for arm in dict.fromkeys((contrast.a, contrast.b)) if arm not in present]
        if lacking:
            missing.append(f"{text}: {' and '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no log")
        else:
            possible.append(contrast)
    return possible, missing
