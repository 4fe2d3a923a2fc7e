# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PEERS := .venv/.peers
PACKAGES := api benchmarks cstar_client cstar_core migrations stack store tests worker

.PHONY: help demo test bench chaos fuzz up format lint types arrows tests generate lock clean

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

demo: $(INSTALLED)  ## compress and verify a small network through the real stack, end to end
	$(BIN)/python -m stack.demo

test: lint types arrows tests  ## everything that must hold before a change lands

bench: $(PEERS)  ## measure speed beside the peers; DATA=folder adds trained CIFAR-10 networks
	$(BIN)/python -m benchmarks --json benchmarks/results/p_table.json $(if $(DATA),--data $(DATA))

chaos: $(INSTALLED)  ## kill processes at seeded times, on every broker and database (20 minutes)
	$(BIN)/python -m tests.chaos

fuzz: $(INSTALLED)  ## requests made up from openapi.json against a real API (10 minutes; MINUTES=2, SEED=1)
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

up: $(INSTALLED)  ## keep the stack running on http://127.0.0.1:8000 until Ctrl-C
	$(BIN)/python -m stack up

format: $(INSTALLED)  ## rewrite the code in the house format
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

lint: $(INSTALLED)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)

types: $(INSTALLED)
	$(BIN)/mypy

arrows: $(INSTALLED)
	$(BIN)/lint-imports

# A test process that crashes ends the run: xdist was seen to wait for ever for the files it had.
tests: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

generate: $(INSTALLED)  ## rewrite the committed openapi.json, store/architectures.json and api/problem_pages/texts.json
	$(BIN)/python -m cstar_core.architectures.catalog > store/architectures.json
	$(BIN)/python -m api.openapi
	$(BIN)/python -m api.problem_pages.texts

lock:  ## rewrite constraints.txt from the newest versions the ranges allow
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet '.[bench,demo,test]'
	.venv-lock/bin/pip install --quiet --no-deps torchattacks torch-pruning
	.venv-lock/bin/pip freeze --exclude cstar-service | sed -E 's/\+[a-z0-9.]+$$//' > constraints.txt
	rm -rf .venv-lock build

clean:  ## remove the environment and everything the stack and the demo have written
	rm -rf .venv .cstar demo_output *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,test]'
	touch $@

# What torchattacks and torch-pruning ask for (an old `requests`, torchvision) is not used here.
$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchattacks torch-pruning
	touch $@
