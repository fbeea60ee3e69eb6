# These are the commands that people run while they work on tlrun. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help test test-fast lint types docs proofs

help: ## print this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: +##/\t/' | expand -t 14

test: ## run the whole default suite, one test per core
	pytest

test-fast: ## run what trains nothing, in about a minute: configuration, files, losses, pages, documents
	pytest tests/config tests/files tests/losses tests/report/statistics tests/report/pages tests/test_docs.py

lint: ## check rules and format (ruff), layers (import-linter) and import cycles
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	python scripts/import_cycles.py

types: ## check types (mypy)
	mypy tlrun

docs: ## check that every command of the documents composes and every preset runs
	pytest tests/test_docs.py tests/test_experiments.py

proofs: ## give bad commands and damaged files by the thousand, and kill a hundred runs (slow)
	python scripts/prove_commands.py
	python scripts/prove_kills.py
