# Two commands: `make demo` shows the whole job, `make test` checks it. `make test-all` adds the tests
# that take long (real deployments, kills, the browser, every command of the docs as a process) and
# checks the shapes and types of every call.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLI := $(BIN)/fedprompt
DEMO := runs/demo
CONFIG := --config examples/demo.toml

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: env demo test test-all lint format bench results clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: env
	$(CLI) doctor
	$(CLI) simulate $(CONFIG) --output $(DEMO)
	$(CLI) eval $(DEMO) $(CONFIG)
	$(CLI) simulate $(CONFIG) --set prompt.method=coop --output $(DEMO)-coop
	$(CLI) eval $(DEMO)-coop $(CONFIG)
	$(CLI) export $(DEMO) $(CONFIG) --output $(DEMO)/classifier.onnx
	$(CLI) verify $(DEMO)/classifier.onnx
	$(BIN)/python examples/save_photos.py $(DEMO)/photos
	$(CLI) predict $(DEMO)/classifier.onnx $(DEMO)/photos/*.png
	$(CLI) report $(DEMO) --beside $(DEMO)-coop --output $(DEMO)/report.html
	@echo "Open $(DEMO)/report.html to see the run."

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal -m "not slow"

test-all: lint
	FEDPROMPT_CHECK_SHAPES=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# minutes each; the figures of README and docs/benchmarks.md come from here, and two pages whole
bench: env
	for name in local_step bytes rounds accuracy embedded edge; do \
		$(BIN)/python -m benchmarks.$$name --json || exit 1; done
	$(BIN)/python -m benchmarks.inference --json --output docs/inference.md
	$(BIN)/python -m benchmarks.ladder --json --output docs/ladder.md

# tunes every method over three seeds and writes docs/results.md; what is done is kept in
# runs/results. TINY_IMAGENET=folder adds the natural classes
results: env
	$(BIN)/python -m benchmarks.results $(if $(TINY_IMAGENET),--tiny-imagenet $(TINY_IMAGENET))

clean:
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
