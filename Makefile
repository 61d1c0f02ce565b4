# `make demo` shows a sweep, `make test` checks the code and runs the unit tests,
# `make test-integration` runs the slow tests. Each installs what it needs into .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Modules are compiled when first imported: compiling every installed file takes a minute more.
PIP    := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10
# Tests start many processes; with this set, each of them would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo notebook test test-integration chaos coverage check docker-check docs format bench clean

demo: .installed-demo
	$(BIN)/python examples/feedforward_stdlib.py

# Executes examples/quickstart.ipynb and writes its outputs into it.
notebook: .installed-integration
	$(BIN)/python tests/helpers/quickstart.py

test: check
	$(PYTEST) --dist worksteal

test-integration: .installed-integration
	$(PYTEST) --dist loadgroup -m "(integration or slow) and not chaos" --timeout 1200

chaos: .installed-integration
	$(PYTEST) -m "integration or chaos" -k "not a_few and not hundred" tests/chaos \
		tests/integration/test_full_disk.py tests/integration/test_memory.py

coverage: .installed-test
	$(PYTEST) --dist worksteal --cov --cov-report=term:skip-covered

check: .installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docker-check: .installed-integration
	$(BIN)/python -m pytest -n 0 -m integration tests/integration/test_docker.py \
		tests/integration/test_docker_stack.py

format: .installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[test]'
	@touch $@ .installed-demo

.installed-integration: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[integration]'
	@touch $@ .installed-test .installed-demo

.installed-docs: .installed-demo
	$(PIP) -e '.[docs]'
	@touch $@

.installed-bench: .installed-test
	$(PIP) -e '.[bench]'
	@touch $@

bench: .installed-bench
	$(BIN)/python benchmarks/train_loop.py
	$(BIN)/python benchmarks/fit.py

docs: .installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .installed-* build dist *.egg-info
