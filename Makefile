# make demo: the whole path on the embedded miniature. make test, make test-slow, make test-full, make lint.
# Each target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TWO = --numprocesses 2 --dist worksteal # tests side by side, each on one thread

.PHONY: demo test test-slow test-full lint setup clean

$(VENV)/ready: setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# KenLM is compiled where it is installed: the tests need it, the demo does not
$(VENV)/lm: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[lm]'
	touch $@

setup: $(VENV)/ready

demo: setup
	$(BIN)/python -m lebench_sb.grid.demo

test: $(VENV)/lm lint
	$(BIN)/python -m pytest -m "not slow and not full" $(TWO)

test-slow: $(VENV)/lm
	$(BIN)/python -m pytest -m "slow and not full" $(TWO)

test-full: $(VENV)/lm
	$(BIN)/python -m pytest -m full $(TWO)

lint: setup
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
