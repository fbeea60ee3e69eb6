# What people run while they work on tlrun. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help test test-fast lint types docs proofs

help: ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: +##/\t/' | expand -t 14

test: ## the whole default suite, a test per core
	pytest

test-fast: ## what imports no training: configuration, command line, documents, pure functions
	pytest tests/config/test_compose.py tests/test_docs.py tests/losses tests/report

lint: ## ruff: rules and format; layers and import cycles
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	python scripts/import_cycles.py

types: ## mypy
	mypy tlrun

docs: ## every command of the documents composes, every key is described
	pytest tests/test_docs.py tests/test_experiments.py

proofs: ## slow: bad commands and damaged files by the thousand, a hundred kills
	python scripts/prove_commands.py
	python scripts/prove_kills.py
