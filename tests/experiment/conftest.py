"""A Ray cluster of two nodes on this machine, and one thread for all arithmetic, so that runs anywhere give equal numbers."""

from collections.abc import Iterator

import pytest
from ray_nodes import TwoNodes


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_nodes(one_thread: None) -> Iterator[TwoNodes]:
    pytest.importorskip("ray")
    made = TwoNodes()
    yield made
    made.close()
