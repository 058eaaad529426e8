# make demo        the main job on the embedded data, in an environment of its own
# make test        the tests (under seven minutes on two cores);  make test-slow  kills, wheels, browsers, documents
# make test-portable   unit, contract and golden tests on the arithmetic of two other processors (eight minutes)
# make fuzz        ten minutes of recipes, words and files that nobody has tried (ARGS='--minutes 1')
# make first-hour  docs/first-hour.md as it stands, from the built wheel in empty environments (eight minutes; installs torch)
# make lint        ruff and mypy --strict
# make bench       what a step, a bank and a training cost, on this machine (half an hour)
# make bench-all   the same with the peers and torch.compile (an hour; benchmarks/README.md says what ARGS it takes)
# make bench-evidence DATA=DIR   train what the studies of accuracy lack (real data in DIR; days, can be cut: ARGS="--minutes 60")
# Settings: PYTHON=python3.12, VENV=.venv, TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
# Files in the order of their names: the long ones (contract, e2e) come first, the many short ones of unit fill the end.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
# Several processes share the cores: waiting OpenMP threads must sleep, not spin.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-portable test-slow fuzz first-hour lint bench bench-all bench-evidence clean

demo: $(VENV)/.core
	$(BIN)/classroomkd demo

test: $(VENV)/.test
	$(TEST)

# The same sums in another order, as other processors add them: MKL's slowest common path, then ATen without vectors.
test-portable: $(VENV)/.test
	MKL_CBWR=COMPATIBLE $(TEST) -m "not slow or alike" tests/unit tests/contract tests/golden
	ATEN_CPU_CAPABILITY=default $(TEST) -m "not slow or alike" tests/unit tests/contract tests/golden

test-slow: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -W error tests/fuzz.py $(ARGS)

first-hour: $(VENV)/.test
	TORCH="$(TORCH)" $(BIN)/python .ci/first_hour.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py --only 1,2,3,4,5,8,9,10,11,12,13 $(ARGS)
	$(BIN)/python benchmarks/render.py

bench-all: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py --compile $(if $(DATA),--data "$(DATA)") $(ARGS)
	$(BIN)/python benchmarks/render.py

bench-evidence: $(VENV)/.core
	@test -n "$(DATA)" || { echo "Where are the data? make bench-evidence DATA=DIR [ARGS='--minutes 60']"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evidence run --data "$(DATA)" $(ARGS)

# torch first and alone: the constraint keeps the build that this finds (CPU or CUDA) when the rest follows.
$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "classroomkd needs Python 3.11 or newer; $(PYTHON) is older: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python lacks venv; install it with: apt-get install python3-venv"; exit 1; }
	@echo "Making the environment in $(VENV) (torch is the large part) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.lint: $(VENV)/.core
	$(PIP) -e ".[lint]"
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
