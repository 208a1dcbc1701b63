PY := .venv/bin/python

.PHONY: check test

.venv/installed: pyproject.toml constraints.txt
	python3 -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

check: .venv/installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

test: .venv/installed
	$(PY) -m pytest

.PHONY: demo
demo: .venv/installed
	$(PY) -m msm_bench.demo
