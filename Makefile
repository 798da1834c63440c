# make demo: the whole path on the embedded miniature. make test, make test-slow, make lint.
# Each target sets up what it needs in .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TWO = --numprocesses 2 --dist worksteal # tests side by side, each on one thread

.PHONY: demo test test-slow lint setup clean

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
	$(BIN)/python -m lebench_sb.demo

test: $(VENV)/lm lint
	$(BIN)/python -m pytest -m "not slow" $(TWO)

test-slow: $(VENV)/lm
	$(BIN)/python -m pytest -m slow $(TWO)

lint: setup
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build *.egg-info
