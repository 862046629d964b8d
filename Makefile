# Everything a person does with this repository. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

bin := .venv/bin
stamp := .venv/.complete
rivals := .venv/.rivals
workers ?= 3

.PHONY: help setup demo test lint campaign fuzz bench parts audit clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 19

setup: $(stamp) ## install what is missing: system packages (root or sudo) and .venv

$(stamp): pyproject.toml $(wildcard setup/*.sh)
	@setup/install-system-packages.sh
	@setup/make-environment.sh
	@setup/install-viewer.sh
	@touch $@

demo: $(stamp) ## a synthetic study through a real Orthanc and the node, with the known truth beside the result
	@$(bin)/python demo/run_demo.py $(if $(KEEP),--keep) $(if $(ENTRANCE),--entrance $(ENTRANCE))

# One numerical thread each keeps the workers from fighting for the cores. Three on two cores: half of a test is waiting.
test: lint ## style, types, import contracts and every test
	@echo '== tests'
	@OMP_NUM_THREADS=1 $(bin)/pytest -n $(workers) --durations=15

lint: $(stamp) ## style, types and import contracts only
	@echo '== style'
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@echo '== types'
	@$(bin)/mypy
	@echo '== import contracts'
	@$(bin)/lint-imports --no-logo

campaign: $(stamp) ## break the node on purpose and count what was lost; SCALE=ci|nightly|release
	@$(bin)/python tests/crash/campaign.py --scale $(or $(SCALE),nightly) $(if $(ONLY),--only $(ONLY)) \
	    $(if $(PAGE),--page docs/campaign.md)

fuzz: $(stamp) ## coverage-guided fuzzing of what reads a stranger's bytes; SECONDS_EACH=600 for each entrance
	@$(bin)/python tests/crash/fuzz.py --seconds $(or $(SECONDS_EACH),600) $(if $(ONLY),--only $(ONLY))

# Nothing that is installed may change for a rival: what cannot be had beside it is left out, and its benchmark says so.
$(rivals): pyproject.toml | $(stamp)
	@$(bin)/python -m pip install --disable-pip-version-check --quiet --upgrade-strategy only-if-needed --group bench \
	    || echo 'bench: rivals of the group `bench` could not be installed; they are left out' >&2
	@touch $@

bench: $(stamp) $(rivals) ## measure speed and memory beside rivals; ONLY=intake for one, KEEP=1 to write docs/performance.md
	@$(bin)/python bench/run_bench.py $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep)

bench-gate: $(stamp) ## fail if a ratio to a rival fell by more than 25 %, three times; KEEP=1 commits today's
	@$(bin)/python bench/gate.py $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep)

parts: $(stamp) ## the parts of this installation as CycloneDX: build/parts.cdx.json
	@mkdir -p build && $(bin)/hydrops-node parts --out build/parts.cdx.json && echo build/parts.cdx.json

audit: $(stamp) ## ask a public service (network) for known holes in what is installed; the list without one: setup/known_holes.toml
	@$(bin)/pip-audit --skip-editable --progress-spinner off

clean: ## remove .venv, caches and everything the demo wrote
	@rm -rf .venv .cache build demo-output *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
