SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

.PHONY: help setup setup-gpu env-archive quickstart rl-quickstart test test-all test-cuda test-faults test-slurm golden-cards lint audit bench bench-data bench-balance \
	bench-loss bench-plan bench-checkpoint bench-eval bench-grade bench-synth gpu-check bench-gpu bench-qlora gpu-wheels \
	requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

setup: ## make .venv with the pinned CPU stack
	@tools/setup.sh

setup-gpu: ## make .venv-gpu with the pinned GPU stack, after checks of the machine (FLASH_ATTN=1: also build flash-attn, needs nvcc 13)
	@tools/setup.sh gpu

env-archive: ## pack .venv-gpu (or VENV=DIR) into one file, which nodes unpack if slurm/site.env has LOCAL_ENV
	@tools/env_archive.sh $(VENV)

quickstart: setup ## run the whole pipeline on a tiny model
	.venv/bin/warmstart run tiny
	@echo "For the warmstart command in this shell: source .venv/bin/activate"

SEED ?= 0
rl-quickstart: setup ## after the quickstart: run GRPO from its checkpoint, compare before and after (twenty minutes; SEED=N)
	$(PYTHON) tools/rl_quickstart.py $(SEED)

WORKERS ?= 2
test: setup ## run all but the slow tests, WORKERS=2 at a time
	$(PYTHON) -m pytest -m "not slow" -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-all: test ## run all tests, the slow ones one at a time (hours)
	$(PYTHON) -m pytest -m slow

test-cuda: setup ## run training steps on CUDA tensors without a GPU: devices, types, host reads, the planner (needs gcc)
	$(PYTHON) -m pytest -m "not slow" tests/cuda

test-faults: setup ## compare interrupted and damaged training runs with an undisturbed one (half an hour)
	$(PYTHON) -m pytest tests/faults

test-slurm: setup ## run jobs on a real Slurm cluster of four nodes (root; installs Debian's slurm-wlm)
	$(PYTHON) -m pytest tests/slurm

golden-cards: setup ## write the golden model cards again, after a change of the card (minutes)
	$(PYTHON) -m tests.eval.card.golden_runs

lint: setup ## run ruff, mypy and shellcheck
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shellcheck --external-sources slurm/*.sh slurm/*.env tools/*.sh

audit: setup ## the pins against known advisories (needs network; exceptions: tools/audit_exceptions.yaml)
	$(PYTHON) -m tools.audit

bench: bench-data bench-balance bench-loss bench-plan bench-checkpoint bench-eval bench-grade ## run all benchmarks that need no GPU

bench-data: setup ## the data stage against tokenizing alone and against datasets.map (20,000 rows)
	$(PYTHON) -m tests.bench.bench_data

bench-balance: setup ## how long ranks wait for the slowest one, against stock verl, computed and in real steps; and how long they wait for rows
	$(PYTHON) -m tests.bench.bench_balance
	$(PYTHON) -m tests.bench.bench_steps
	$(PYTHON) -m tests.bench.bench_parts

bench-loss: setup ## memory and time of the loss against full logits
	$(PYTHON) -m tests.bench.bench_loss

bench-plan: setup ## the planner's memory against what real steps take
	$(PYTHON) -m tests.bench.bench_plan

bench-checkpoint: setup ## how long a checkpoint keeps training waiting, against a blocking save
	$(PYTHON) -m tests.bench.bench_checkpoint

bench-eval: setup ## time to the last rollout against the clairvoyant schedule and static splits, simulated and real
	$(PYTHON) -m tests.bench.bench_eval

bench-grade: setup ## time to grade ordinary and hostile rollouts, against plain math-verify
	$(PYTHON) -m tests.bench.bench_grade

BENCHMARKS ?= data/benchmarks
bench-synth: setup ## the eight filters on 83,000 generated problems (BENCHMARKS: a folder with gsm8k_{train,test}.jsonl)
	$(PYTHON) -m tests.bench.bench_synth $(BENCHMARKS)

GPU_PYTHON = $(if $(wildcard .venv-gpu),.venv-gpu/bin/python,$(PYTHON))
OUT ?= .bench/$@-$(shell date -u +%Y%m%dT%H%M%SZ).jsonl
LENGTH ?= 8192
QLORA_CASES = qlora trl-qlora qlora-long-rows trl-qlora-long-rows
gpu-check: ## on one GPU, in eight minutes: correctness, speed and memory against stock verl and TRL (OUT: file of results)
	$(GPU_PYTHON) -m tests.gpu.check --out $(OUT) $(if $(CASES),--cases $(CASES))

bench-gpu: ## a longer gpu-check: all layers that fit, rows of LENGTH=8192, every setting
	$(GPU_PYTHON) -m tests.gpu.check --long --length $(LENGTH) --out $(OUT) $(if $(CASES),--cases $(CASES))

bench-qlora: ## on one GPU, for longer: QLoRA against TRL with the same settings
	$(GPU_PYTHON) -m tests.gpu.check --long --out $(OUT) --cases $(QLORA_CASES)

gpu-wheels: setup ## collect the packages that gpu-check needs on a machine with PyTorch but no network, in FOLDER=.gpu-wheels
	@tools/gpu_wheels.sh $(FOLDER)

requirements: ## pin setup.py's dependencies again (UPGRADE=1: newest releases)
	@tools/setup.sh requirements $(if $(UPGRADE),--upgrade)

clean: ## remove the environments and the caches (runs/ and data/ stay)
	rm -rf .venv .venv-gpu .venv-bootstrap .venv*.tar* .bench build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
