PY := .venv/bin/python

.PHONY: check test demo grid

.venv/installed: pyproject.toml constraints.txt
	python3 -m venv .venv
	$(PY) -m pip install -q -c constraints.txt -e .
	touch $@

.venv/dev: .venv/installed
	$(PY) -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

check: .venv/dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

test: .venv/dev
	$(PY) -m pytest

demo: .venv/installed
	$(PY) -m msm_bench.demo

grid: .venv/installed
	$(PY) -m msm_bench.grid
