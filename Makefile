# `make demo` and `make test` set up what they need in .venv; nothing else has to be installed first but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# one thread per process: the numbers do not depend on the machine's cores, and two processes do not fight for them
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-all lint types bench docs artifact clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	rm -rf *.egg-info
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[extract,bench,dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m manifoldzoo demo --output runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not follow editable installs, so it checks the package as a user would install it
types: $(STAMP)
	rm -rf build/types build/lib
	$(BIN)/python -m pip install --quiet --no-deps --target build/types .
	cd build/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p manifoldzoo

bench: $(STAMP)
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script; done

docs: $(STAMP)
	$(BIN)/python docs/make_reference.py

# extracts and validates the bundled artifacts anew from the full data sets, in about half an hour; a maintainer
# copies the folders to manifolds/bundled/NAME/VERSION, with a new version if the digest differs
DATA ?= ../shared/data
NAMES = hematopoietic hematopoietic-raw communication cell-cycle
UNTRAINED = $(if $(filter hematopoietic-raw,$*),,--untrained 5)
artifact: $(addprefix artifact-,$(NAMES))
artifact-%: $(STAMP)
	rm -rf build/$*
	$(BIN)/python -m manifoldzoo extract $* --panels $* --data $(DATA) $(UNTRAINED) --output build/$*
	$(BIN)/python -m manifoldzoo validate ./build/$* --through 6 || [ $$? -eq 1 ]

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache *.egg-info
