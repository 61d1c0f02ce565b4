# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests start hundreds of processes: where this is set each would compile us anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test chaos coverage check docker-check docs format bench clean

demo: .installed-demo
	$(BIN)/python examples/gpt_stdlib.py

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

chaos: .installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "chaos or not chaos" \
		-k "not a_few and not hundred" tests/chaos tests/sweep/test_full_disk.py tests/sweep/test_memory.py

coverage: .installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

check: .installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docker-check: .installed-test
	$(BIN)/python -m pytest -n 0 tests/test_docker.py tests/test_docker_stack.py

format: .installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.installed-test: .installed-demo
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.installed-docs: .installed-demo
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

.installed-bench: .installed-test
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

bench: .installed-bench
	$(BIN)/python benchmarks/train_loop.py
	$(BIN)/python benchmarks/fit.py

docs: .installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .installed-* build dist *.egg-info
