# make run   sets up .venv and starts the app on 127.0.0.1:7860
# make check sets up .venv, looks at the code's form and runs the fast tests: three minutes on two cores
# make test  sets up .venv and runs the tests (browser tests skip where there is no chromium): twelve minutes
# make test-long runs what takes long: kills in the middle of work, faulty hubs, older readers
# make test-all runs every case, ten times as many hostile inputs, older readers, a soak and a Space: for a release
# make bench prints the benchmarks' tables
# make soak  lets visitors come to a server of its own for half an hour
# make docs  draws docs/architecture.md anew and writes the API reference to build/docs
# make wheel builds the package into build/wheel, installs it into an environment of its own and tries it
# make types holds the library against its type annotations (mypy)
# make space puts together what a Hugging Face Space needs, in build/space, and tries it in a clean environment
# make screenshots takes the README's pictures anew
#
# On Linux, PyPI's torch brings several GB of CUDA. For a CPU build name PyTorch's CPU index:
#   make run TORCH_INDEX=<address of PyTorch's CPU wheel index>

TORCH ?= torch==2.13.0
TORCH_INDEX ?=
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin

# The three tiers of tests: the marks that each leaves out (pyproject.toml says what they mean), and the Hypothesis
# profile (tests/conftest.py), which says how many hostile inputs are tried. `test-all` leaves out nothing; what must
# have the machine to itself, or sets up another environment, runs after the rest.
TIER_CHECK := -m "not slow and not exhaustive and not long and not alone" --hypothesis-profile check
TIER_TEST := -m "not exhaustive and not long and not alone" --hypothesis-profile test
TIER_LONG := -m "long and not exhaustive and not alone" --hypothesis-profile test
TIER_ALL := -m "not long and not alone" --hypothesis-profile test-all

# two processes of one thread each; the files in the order of their names, as that begins with the longest
PYTEST_BY_TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: run check test test-long test-all lint types bench soak docs wheel space screenshots clean

run: $(VENV)/.installed
	$(BIN)/python app.py

check: lint types
	$(PYTEST_BY_TWO) $(TIER_CHECK)

test: $(VENV)/.installed-dev
	$(PYTEST_BY_TWO) $(TIER_TEST)

test-long: $(VENV)/.installed-dev
	$(PYTEST_BY_TWO) $(TIER_LONG)

test-all: lint
	$(PYTEST_BY_TWO) $(TIER_ALL)
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m rounding --hypothesis-profile test-all
	$(BIN)/python -m pytest -m "long or alone"
	$(MAKE) wheel
	$(MAKE) space
	$(MAKE) soak

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.interface
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.repair
	$(BIN)/python -m benchmarks.quality

soak: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.load --soak 30

docs: $(VENV)/.installed-dev
	$(BIN)/python -m docs.architecture
	$(BIN)/python -m docs.build build/docs

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m tests.wheel

space: $(VENV)/.installed-dev
	$(BIN)/python -m tests.space --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"

screenshots: $(VENV)/.installed-dev
	$(BIN)/python -m tests.e2e.screenshots

clean:
	rm -rf $(VENV)

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python .ci/install.py $(if $(TORCH_INDEX),--index-url=$(TORCH_INDEX)) "$(TORCH)"
	@$(BIN)/python .ci/install.py --requirement=requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@$(BIN)/python .ci/install.py --requirement=requirements-dev.txt
	if command -v npm >/dev/null; then npm install --silent --no-fund --no-audit --prefix $(VENV) axe-core@4; fi
	touch $@
