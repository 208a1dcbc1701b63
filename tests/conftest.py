"""Marks: `slow` tests run with --runslow, `gpu` tests with --rungpu."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow")
    parser.addoption("--rungpu", action="store_true", help="run the tests marked gpu")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in ("slow", "gpu"):
            if mark in item.keywords and not config.getoption(f"--run{mark}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --run{mark}"))
