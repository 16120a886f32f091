# `make demo` and `make test` set up everything they need: a virtual environment in .venv with the
# pinned versions of constraints.txt, CPU wheel of torch first. Nothing else has to be typed.
VENV   ?= .venv
PYTHON ?= python3
RUN    := $(VENV)/bin/

.PHONY: demo test lint docs notebooks benchmarks compatibility clean

demo: $(VENV)/.installed
	$(RUN)lensneurons demo

test: $(VENV)/.installed
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)basedpyright
	$(RUN)lint-imports
	$(RUN)python -m pytest

lint: $(VENV)/.installed
	$(RUN)ruff check --fix .
	$(RUN)ruff format .
	$(RUN)basedpyright
	$(RUN)lint-imports

docs: $(VENV)/.installed
	EAGER_IMPORT=1 HF_HUB_OFFLINE=1 $(RUN)python -W error assets/reference/build.py build/docs

notebooks: $(VENV)/.installed
	$(RUN)python tests/support/export_notebooks.py

benchmarks: $(VENV)/.installed
	$(RUN)python tests/benchmarks

compatibility:
	bash tests/compatibility/transformer_lens_3.sh

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN)python -m pip install --quiet --upgrade pip
	$(RUN)python -m pip install --quiet --constraint constraints.txt torch
	$(RUN)python -m pip install --quiet --constraint constraints.txt --editable ".[dev,png,align]"
	touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis dist
