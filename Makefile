# Every target sets up what it needs: a machine with make, a shell, a C compiler and Python 3.11 or newer is enough.
# All that is installed, cached or built stays inside this folder.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BOOT ?= .uv
# LiteLLM is a program of its own and wants other versions of libraries that both use.
LITELLM ?= $(VENV)-litellm
# Other engines for forests, to compare with.
PEERS ?= $(VENV)-peers
# JupyterLab brings a hundred packages that nothing else needs.
NOTEBOOKS ?= $(VENV)-notebooks
UV := $(BOOT)/bin/uv
PY := $(VENV)/bin/python
# The interpreter to build upon: `make PYTHON=/path/to/python3 …`, else the first that is new enough.
PYTHON ?=
CANDIDATES = $(if $(PYTHON),$(PYTHON),python3 python3.12 python3.11 python3.13 python3.14)
WORKERS ?= logical
PYTEST = $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadfile

export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export UV_PYTHON_DOWNLOADS := never
export UV_SYSTEM_CERTS ?= 1
export UV_NO_PROGRESS := 1
# numba keeps compiled kernels by the age of their own file; what they call or read elsewhere may have changed since.
KERNELS := $(shell find classifier -name '*.py' \( -path '*/features/*' -o -exec grep -q numba {} \; \) -print | sort | xargs cat | cksum | cut -d ' ' -f 1)
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba/$(KERNELS)
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
# Threads that wait for one another sleep: spinning takes the core from the other processes of a test run.
export OMP_WAIT_POLICY ?= passive
export MLFLOW_DISABLE_TELEMETRY := true
# Another environment must not be the one that is installed into, and without byte code each start compiles anew.
unexport VIRTUAL_ENV
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.base ## the whole way on simulated traffic: a table of decisions and a report
	$(VENV)/bin/botsieve demo

.PHONY: test
test: $(VENV)/.dev ## the fast tests
	$(PYTEST) -m "not slow"

.PHONY: test-slow
test-slow: $(VENV)/.dev $(LITELLM)/.installed ## long property runs, real gateways, the browser
	BOTSIEVE_TEST_LITELLM=$(abspath $(LITELLM))/bin/litellm $(PYTEST) -m slow || test $$? -eq 5

# EVALUATION: where the tables go; logs that are already there are not simulated again.
EVALUATION ?= evaluation
.PHONY: evaluation
evaluation: $(VENV)/.base ## every table of docs/evaluation.md, from a fixed seed
	$(VENV)/bin/botsieve evaluate --protocol --out $(EVALUATION)

.PHONY: check
check: $(VENV)/.dev ## lint, format, types, import edges
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

# What the tests would else set up first, the kernels once in each process: it takes one core while the linters take another.
.PHONY: ready
ready: $(VENV)/.dev $(LITELLM)/.installed
	$(PY) -m classifier.features.kernels

.PHONY: format
format: $(VENV)/.dev ## mend what the linter can mend by itself
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

.PHONY: bench-serving
bench-serving: $(VENV)/.dev ## the service under load, beside a plain FastAPI route (needs wrk)
	$(PY) -m tests.benchmarks serving

.PHONY: bench-forest
bench-forest: $(VENV)/.dev $(PEERS)/.installed ## the forest through our engines and others, in five batch sizes
	BENCH_FOREST="--peers $(PEERS)/bin/python $(if $(PLOT),--plot $(PLOT))" $(PY) -m tests.benchmarks forest

.PHONY: bench
bench: $(VENV)/.dev ## every benchmark, as tables (ONLY="name …" for some)
	$(PY) -m tests.benchmarks $(ONLY)

.PHONY: notebooks
notebooks: $(NOTEBOOKS)/.installed ## JupyterLab on the notebooks, in an environment of its own
	cd notebooks && $(abspath $(NOTEBOOKS))/bin/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: setup
setup: $(VENV)/.dev ## the development environment, without running anything

# What is pinned stays as it is unless pyproject.toml asks for another version, or UPGRADE=1 is given.
PIN = $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --generate-hashes $(if $(UPGRADE),--upgrade)
.PHONY: pins
pins: $(BOOT)/.installed ## renew requirements/*.txt from pyproject.toml (UPGRADE=1 for the newest versions)
	echo uv | $(PIN) --no-annotate - --output-file requirements/uv.txt
	echo 'litellm[proxy]>=1.100' | $(PIN) --no-annotate - --output-file requirements/litellm.txt
	$(PIN) pyproject.toml --group build --group dev --output-file requirements/dev.txt
	$(PIN) pyproject.toml --group build --constraint requirements/dev.txt --output-file requirements/base.txt
	$(PIN) pyproject.toml --group build --group notebooks --constraint requirements/dev.txt --output-file requirements/notebooks.txt

.PHONY: clean
clean: ## remove what runs leave behind; environments and mlruns/ stay
	rm -rf demo evaluation build dist notebooks/work .cache/numba .cache/matplotlib
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find classifier serving tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the environments and every cache as well
	rm -rf .venv .venv-litellm .venv-peers .venv-notebooks .uv .cache *.egg-info

$(BOOT)/.installed: requirements/uv.txt
	@python=; \
	for candidate in $(CANDIDATES); do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	    then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Python 3.11 or newer is needed, and none of these is one: $(CANDIDATES)." >&2; \
	    echo "Install it, or name it: make PYTHON=/path/to/python3 …" >&2; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	    echo "$$python has no venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "setting up with $$($$python --version)"; \
	$$python -m venv --clear $(BOOT)
	$(BOOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.created: $(BOOT)/.installed
	$(UV) venv --quiet --clear --python $(BOOT)/bin/python $(VENV)
	@touch $@

# `sync` also removes what is no longer pinned, so the project itself goes in after it.
INSTALL = $(UV) pip sync --quiet --python $(PY) --require-hashes
PROJECT = $(UV) pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .

$(VENV)/.base: requirements/base.txt pyproject.toml $(VENV)/.created
	$(INSTALL) requirements/base.txt
	$(PROJECT)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	$(INSTALL) requirements/dev.txt
	$(PROJECT)
	@touch $@

$(LITELLM)/.installed: requirements/litellm.txt $(BOOT)/.installed
	$(UV) venv --quiet --clear --python $(BOOT)/bin/python $(LITELLM)
	$(UV) pip sync --quiet --python $(LITELLM)/bin/python --require-hashes requirements/litellm.txt
	@touch $@

# What does not install here is left out of the comparison. lleaves wants an older llvmlite than it says.
$(PEERS)/.installed: $(BOOT)/.installed
	$(UV) venv --quiet --clear --python $(BOOT)/bin/python $(PEERS)
	@for peer in treelite==4.8.1 tl2cgen==1.0.0 "lleaves==1.3.0 llvmlite<0.45" $$(nvidia-smi >/dev/null 2>&1 && echo nvforest-cu13==26.10.0); do \
	    $(UV) pip install --quiet --python $(PEERS)/bin/python $$peer || echo "$$peer does not install here" >&2; \
	done
	@touch $@

$(NOTEBOOKS)/.installed: requirements/notebooks.txt pyproject.toml $(BOOT)/.installed
	$(UV) venv --quiet --clear --python $(BOOT)/bin/python $(NOTEBOOKS)
	$(UV) pip sync --quiet --python $(NOTEBOOKS)/bin/python --require-hashes requirements/notebooks.txt
	$(UV) pip install --quiet --python $(NOTEBOOKS)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@
