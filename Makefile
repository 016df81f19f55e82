# What one types here: make demo, make test, make check. Needs Python 3.11 or newer; everything else is fetched.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## +(.*)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name text; do \
	  printf '  make %-8s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  make test ARGS="-k name"   only some tests; PYTHON=python3.12 chooses the interpreter'

demo: $(VENV)/stamp-run  ## the whole job on simulated data, start to finish
	$(BIN)/peculiar demo $(ARGS)

picture: $(VENV)/stamp-run  ## draw the README's picture anew, from a demo
	$(BIN)/peculiar demo
	cp demo/night.png docs/night.png

test: $(VENV)/stamp-dev  ## every test, with a real PostgreSQL and a real Redis
	PYTHON=$(BIN)/python tests/services.sh $(BIN)/python -m pytest $(ARGS)

soak: $(VENV)/stamp-dev  ## kills, outages and restarts for a quarter of an hour
	PYTHON=$(BIN)/python tests/services.sh $(BIN)/python -m pytest -m soak -s tests/system $(ARGS)

check: $(VENV)/stamp-dev  ## style, types, known vulnerabilities of what is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit

audit: $(VENV)/stamp-dev  ## ask PyPI for known vulnerabilities of what is installed
	$(BIN)/python .ci/audit

bench: $(VENV)/stamp-run  ## what a night costs, beside a naive script; ARGS="--sizes 1000" for a short one
	$(BIN)/python -m benchmarks.night $(ARGS)

clean:  ## remove the virtual environment and what the tools leave behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .scratch
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Peculiar needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." \
	         "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/stamp-run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/stamp-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@ $(VENV)/stamp-run

.PHONY: help demo picture test soak check audit bench clean
.DEFAULT_GOAL := help
