# Two commands for a newcomer: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUBS := proto/hocket/v1
KERNELS := server/hocket/server/model/native/source

# Pins apply to build environments too, so that an install today and one next year agree.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo proto proto-check format lint type test test-all bench bench-peers bench-steps bench-baseline docs ci clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

$(BIN)/python:
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -c 'import sys; sys.exit("hocket needs Python 3.11 or newer, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet 'pip>=25.1'

$(VENV)/.server: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing hocket and what it runs on (torch is the largest part) ..."
	@$(BIN)/python -m pip install --editable '.[server]'
	@command -v g++ >/dev/null || $(BIN)/python -m pip install --quiet ziglang
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.server
	@echo "Installing what hocket is tested with ..."
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

setup: $(VENV)/.dev ## Make .venv with everything that development needs

demo: $(VENV)/.server ## Eight questions at once to a real model, then a document, sentence by sentence
	@$(BIN)/python tools/demo.py

proto: $(VENV)/.dev ## Regenerate the stubs from proto/
	@$(BIN)/python tools/protos.py

proto-check: $(VENV)/.dev
	@$(BIN)/python tools/protos.py --check
	@$(BIN)/python tools/protos.py --lint

format: $(VENV)/.dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/clang-format -i $(KERNELS)/*.h $(KERNELS)/*.cpp

lint: $(VENV)/.dev proto-check ## Style, layers, contract
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/clang-format --dry-run --Werror $(KERNELS)/*.h $(KERNELS)/*.cpp
	@$(BIN)/python tools/docs_tables.py --check

type: $(VENV)/.dev ## Types, strictly
	@$(BIN)/mypy

test: $(VENV)/.dev ## The tests, without those marked slow
	@$(BIN)/python -m pytest -m 'not slow'

test-all: $(VENV)/.dev ## Every test
	@$(BIN)/python -m pytest

bench: $(VENV)/.dev ## hocket alone, from 1 to 64 streams: speed, latencies, memory, share of the roofline
	@$(BIN)/python -m bench.overview --output bench/results/hocket.json --chart bench/results/hocket.svg

bench-steps: $(VENV)/.dev ## Where the time of a step goes, products by shape, perplexity by int8 scale
	@$(BIN)/python -m bench.steps --with-products --with-scales --output bench/results/steps.json

bench-baseline: $(VENV)/.dev ## Tokens per second over gRPC against transformers, one request after the other
	@$(BIN)/python -m bench.baseline

bench-peers: $(VENV)/.dev ## hocket against OpenVINO GenAI, vLLM and llama.cpp, which are installed first
	@$(BIN)/python -m bench.peers --output bench/results/peers.json

docs: $(VENV)/.dev ## Regenerate the tables in docs/
	@$(BIN)/python tools/docs_tables.py

ci: lint type test ## What must pass before anything lands

clean: ## Remove what the targets made, but not the weights
	rm -rf $(VENV) .venv-protos build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
