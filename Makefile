# Everything a person runs. `make setup` is the only step that needs the package index.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: quickstart setup test dev check bench integration docs clean

quickstart: setup  ## set up, then the main job end to end on the sample assistant
	@$(BIN)/llmops quickstart --assistant assistants/python_help

setup: $(STAMP)  ## environment in .venv, and the built-in models
	@$(BIN)/llmops models pull >/dev/null
	@$(BIN)/python deploy/write_env.py

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	@$(BIN)/python -m pip install --quiet --progress-bar off -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

test: setup  ## tests of every package, on two cores: more threads of each process would wait for the other's
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

integration: setup  ## real processes: dagster dev with its daemon, a browser, kills
	@$(BIN)/python -m pytest tests/integration --override-ini addopts="-q --import-mode=importlib --strict-markers"

dev: setup  ## Dagster UI, daemon and gateway together; Ctrl-C ends all
	@exec $(BIN)/llmops dev

check: $(STAMP)  ## style, types, import contracts, docs
	@$(BIN)/ruff check --no-cache .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

docs: $(STAMP)  ## write the generated parts of README and docs anew
	@$(BIN)/python docs/generate.py

bench: setup  ## benchmarks; each prints both sides of its ratios
	@$(BIN)/python -m pytest tests/benchmark -s --override-ini addopts="-q --import-mode=importlib --strict-markers"

clean:  ## environment and caches; data and models in .llmops stay
	rm -rf .venv .env .mypy_cache .ruff_cache .pytest_cache *.egg-info
