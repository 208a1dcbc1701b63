"""One server after another, with other defaults and an adapter that has a chat template of its own."""

from pathlib import Path
from typing import Any

import pytest
from inspect_ai import eval_set
from inspect_ai.log import EvalLog
from inspect_ai.model import GenerateConfig
from serving_makers import CONFIG, Serve, Trained, task

from msm_bench.experiment.serving.server import Server


def go_on(server: Server, folder: Path, **changes: Any) -> EvalLog:
    """Evaluate the base, or find that it was."""
    success, (log,) = eval_set(
        [task()], log_dir=str(folder), display="none", log_format="json", **{**server.model(None).arguments, **changes}
    )
    assert success
    return log


def sampling(server: Server, **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.model(None, {"t": GenerateConfig(**config)}).metadata["serving"]["sampling"]["t"]
    return found


@pytest.mark.slow
def test_two_servers_one_after_the_other(serve: Serve, trained: Trained, tmp_path: Path) -> None:
    with serve() as first:
        neutral = sampling(first, temperature=0.7)
        assert (neutral["temperature"], neutral["top_p"], neutral["top_k"], neutral["repetition_penalty"]) == (0.7, 1.0, 0, 1.0)
        begun = go_on(first, tmp_path / "logs")

    folder = trained.copy_of_one("own-template")
    template = (trained.base / "chat_template.jinja").read_text().replace("<|im_start|>assistant", "<|im_start|>assistant says")
    (folder / "chat_template.jinja").write_text(template)
    with serve(folder, args={"generation_config": "auto"}) as second:
        # vLLM's own way: the model's generation_config.json is what a task did not set
        own = sampling(second, temperature=0.7)
        assert (own["temperature"], own["top_p"], own["top_k"], own["repetition_penalty"]) == (0.7, 0.8, 20, 1.05)
        assert sampling(second, top_p=0.9)["top_p"] == 0.9

        assert first.url != second.url
        assert Path(go_on(second, tmp_path / "logs").location).name == Path(begun.location).name
        assert len(list((tmp_path / "logs").glob("*_words_*"))) == 1
        # New requests go to the second server, and not where the first was.
        assert go_on(second, tmp_path / "more").samples is not None

        use = second.model(folder, {"words": CONFIG})
        assert use.arguments["extra_body"]["chat_template"] == template
        assert "extra_body" not in second.model(None).arguments
