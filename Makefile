# make run   sets up .venv and starts the app on 127.0.0.1:7860
# make test  sets up .venv and runs the tests (browser tests skip where there is no chromium)
# make test-long runs the tests marked `long`, which take minutes or install other versions
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

.PHONY: run test test-long lint types bench soak docs wheel space screenshots clean

run: $(VENV)/.installed
	$(BIN)/python app.py

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not alone and not long"
	$(BIN)/python -m pytest -m "alone and not long"

test-long: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

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
