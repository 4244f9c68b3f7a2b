SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help setup setup-gpu quickstart test test-all lint bench requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with the pinned CPU stack
	@tools/setup.sh

setup-gpu: ## make .venv-gpu with the pinned GPU stack (builds flash-attn: needs nvcc)
	@tools/setup.sh gpu

quickstart: setup ## the whole pipeline on a tiny model
	.venv/bin/warmstart run tiny

test: setup ## all but the slow tests
	$(PYTHON) -m pytest -m "not slow"

test-all: setup ## all tests
	$(PYTHON) -m pytest

lint: setup ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup ## all benchmarks in tests/bench
	@set -e; for script in tests/bench/bench_*.py; do \
		[ -e "$$script" ] || { echo "no benchmark in tests/bench" >&2; exit 1; }; \
		echo "== $$script"; $(PYTHON) "$$script"; \
	done

requirements: ## pin setup.py's dependencies anew (UPGRADE=1: newest releases)
	@tools/setup.sh requirements $(if $(UPGRADE),--upgrade)

clean: ## remove the environments and the caches (runs/ and data/ stay)
	rm -rf .venv .venv-gpu .venv-bootstrap .bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
