# Tasks of Atoll. `make help` lists them.
# As root everything runs from /opt/atoll/venv or $ATOLL_VENV (see scripts/bootstrap.sh), else .venv.

VENV := $(shell [ "$$(id -u)" = 0 ] && echo "$${ATOLL_VENV:-/opt/atoll/venv}" || echo .venv)
BIN := $(VENV)/bin
RINGS := unit engine e2e fault

# Tasks of developers use the checkout, not the copy that `make up` installed.
test $(RINGS) check bench docs: export PYTHONPATH := $(CURDIR)/src

.DEFAULT_GOAL := help
.PHONY: help up down purge test $(RINGS) check fmt bench docs lock dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## install what is missing, start everything, make the first VM (root)
	@scripts/bootstrap.sh run
	@$(BIN)/atoll up

down: ## pause all VMs to disk, leave no process, mount, namespace or cgroup (root)
	@if [ -x $(BIN)/atoll ]; then $(BIN)/atoll down; fi

purge: ## down, then delete all VMs, images, keys and the environment (root)
	@if [ -x $(BIN)/atoll ]; then $(BIN)/atoll purge --yes; fi
	@rm -rf $(VENV)
	@if [ -d /opt/atoll ]; then rmdir --ignore-fail-on-non-empty /opt/atoll; fi
	@if [ "$$(readlink /usr/local/bin/atoll)" = /opt/atoll/venv/bin/atoll ] && [ ! -e /opt/atoll ]; then rm /usr/local/bin/atoll; fi

test: dev ## every test: all rings, one after the other (root)
	@scripts/test.sh $(BIN)/python $(RINGS)

unit: dev ## ring 1: no root, no network, seconds
	@scripts/test.sh $(BIN)/python unit

engine: dev ## ring 2: real kernel and tools, no running cloud (root)
	@scripts/test.sh $(BIN)/python engine

e2e: dev ## ring 3: a second Atoll with real VMs, OpenSSH, curl and Chromium (root)
	@scripts/test.sh $(BIN)/python e2e

fault: dev ## ring 4: processes killed, disks full, files damaged (root)
	@scripts/test.sh $(BIN)/python fault

check: dev ## format, lint, types, layers, unit tests; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@scripts/test.sh $(BIN)/python unit

fmt: dev ## format the code, mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: dev ## measure; ratios of one run, with facts of the machine (root)
	$(BIN)/python bench/run.py

docs: dev ## write the generated pages
	$(BIN)/python scripts/config_reference.py > docs/configuration.md
	$(BIN)/python -m atoll.commands.reference

lock: ## pin dependencies anew from pyproject.toml (needs uv)
	scripts/lock.sh

dev:
	@scripts/bootstrap.sh dev
