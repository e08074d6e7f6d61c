# Everything that a developer runs. `make` lists the targets; ARGS="..." is passed on.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := s3,kubernetes,ssh,docs,test,dev
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
ARGS ?=
PEERS := .venv-peers
# what builds images, and the image that it builds: docker, podman, "buildah --isolation chroot"
ENGINE ?= docker
IMAGE ?= dasrec:test
# `make constraints BASE=constraints.txt` keeps the old pins and only adds what is missing
BASE ?=
# exported, so that `make venv PYTHON=...` reaches .ci/new-venv
export PYTHON

.PHONY: help venv demo test test-slow test-hosts test-browser test-e2e lint format types layers \
    notebooks docs screenshots peers chart image constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build .venv with all extras at the pinned versions
	@:

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing dasrec[$(EXTRAS)] into $(VENV) at the versions of constraints.txt"
	@[[ -x $(BIN)/python ]] || .ci/new-venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP) ## Run the whole way on MovieLens 100K, or on a simulated log
	@$(BIN)/dasrec demo $(ARGS)

test: $(STAMP) ## Run the tests, but for the slow ones, in two processes
	@$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-slow: $(STAMP) ## Run the slow tests only, but for hosts, browser and e2e
	@$(BIN)/pytest -m "slow and not hosts and not browser and not e2e" $(ARGS)

test-hosts: $(STAMP) ## Run the tests on hosts made of network namespaces (root, DASREC_NETNS)
	@$(BIN)/pytest -m hosts $(ARGS)

test-browser: $(STAMP) ## Look at the dashboard page through Debian's chromium; pictures in artefacts/
	@$(BIN)/pytest -m browser $(ARGS)

test-e2e: $(STAMP) ## Run the tests on the Kubernetes cluster that KUBECONFIG names
	@$(BIN)/pytest -m e2e --durations=0 --durations-min=1 tests/e2e $(ARGS)

lint: $(STAMP) ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(STAMP) ## Repair style and formatting where that is safe
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: $(STAMP) ## Check the types of dasrec/
	@$(BIN)/mypy

layers: $(STAMP) ## Check that modules import downwards only
	@$(BIN)/pytest tests/test_layers.py $(ARGS)

notebooks: $(STAMP) ## Run every notebook, two at a time
ifeq ($(NOTEBOOKS),)
	@echo "There are no notebooks"
else
	@$(BIN)/pytest -n 2 --nbmake --nbmake-timeout=600 --timeout=900 $(ARGS) $(NOTEBOOKS)
endif

screenshots: $(STAMP) ## Draw the pictures of the README anew, docs/*.png
	@$(BIN)/python -m tests.screenshots

docs: $(STAMP) ## Build the site of the documentation into site/; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "The documentation is in site/index.html"

peers: $(STAMP) ## Install the libraries whose formulas are compared (5 GB) and record their figures
	@[[ -x $(PEERS)/bin/python ]] || .ci/new-venv $(PEERS)
	@$(PEERS)/bin/python $(PIP_INSTALL) -r tests/peers/requirements.txt
	@$(BIN)/python -m tests.peers.lists

chart: $(STAMP) ## Write the README of the Helm chart and check the chart; fetches helm if it is not here
	@PYTHON=$(BIN)/python .ci/get-helm $(BIN)
	@$(BIN)/python deploy/helm/readme.py
	@$(BIN)/pytest tests/test_chart.py $(ARGS)

image: ## Build the image IMAGE with ENGINE
	@$(ENGINE) build -f deploy/docker/Dockerfile -t $(IMAGE) $(ARGS) .

constraints: ## Resolve all extras in a clean environment and rewrite constraints.txt
	@echo "Resolving dasrec[$(EXTRAS)] in a clean environment"
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	.ci/new-venv "$$folder/venv"; \
	"$$folder/venv/bin/python" $(PIP_INSTALL) $(if $(BASE),-c $(BASE)) -e '.[$(EXTRAS)]'; \
	"$$folder/venv/bin/python" -m pip freeze -qq --exclude-editable > "$$folder/pins"; \
	if grep -vE '^[A-Za-z0-9._-]+==[^ @]+$$' "$$folder/pins"; then \
	    echo "The lines above are not exact pins; constraints.txt is left as it was" >&2; exit 1; \
	fi; \
	{ echo "# Versions that were tested together. Made by 'make constraints'; do not edit by hand."; \
	  cat "$$folder/pins"; } > constraints.txt; \
	echo "constraints.txt: $$(wc -l < "$$folder/pins") pins"

clean: ## Remove builds, caches and the demo's output; .venv stays
	@rm -rf build dist demo-output site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -type d \
	    \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
