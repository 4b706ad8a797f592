# Few words: up, test, lint, docs, bench, down, lock, help. `sh scripts/setup && .venv/bin/gonogo up` does it without make.
.DEFAULT_GOAL := help
.PHONY: help setup dev up down test test-long lint bench docs lock

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

setup: ## what `gonogo up` needs, in .venv
	@sh scripts/setup

dev:
	@sh scripts/setup dev

up: setup ## set up, deploy, prove; ends with an endpoint, a key and lines to paste (ARGS="SPEC --json" goes to gonogo up)
	@.venv/bin/gonogo up $(ARGS)

down: setup ## take everything down
	@.venv/bin/gonogo down --all $(ARGS)

test: dev ## set up, run all tests, the pure ones in two processes (ARGS="tests/core -k keys" picks some)
	@if [ -n '$(subst ','\'',$(ARGS))' ]; then .venv/bin/python -m pytest --durations=15 $(ARGS); else \
	  status=0; \
	  .venv/bin/python -m pytest -n 2 --dist loadfile tests/core || status=1; \
	  .venv/bin/python -m pytest --durations=15 --ignore=tests/core || status=1; \
	  exit $$status; fi

test-long: dev ## the failure and crash tests at their full durations (half an hour)
	@GONOGO_LONG=1 .venv/bin/python -m pytest --durations=5 tests/acceptance/test_failures.py tests/acceptance/test_crashes.py

lint: dev ## ruff, mypy, import-linter
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy && .venv/bin/mypy scripts/install.py
	@.venv/bin/lint-imports

bench: setup ## the gateway beside its peers (benchmarks/failures.py: what each kill costs), on this machine
	@.venv/bin/python benchmarks/gateway.py $(ARGS)

docs: setup ## the annotated spec, as `gonogo docs spec` prints it
	@.venv/bin/gonogo docs spec

lock: ## make the locks again from requirements*.in (needs uv; ARGS=--upgrade for newer ones)
	@sh scripts/lock $(ARGS)
