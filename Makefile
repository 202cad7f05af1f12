# make sweep   install, then run the default study and write its report
# make test    install, then run every check
# make setup   install alone
#
# Needs Python 3.11 or later and make. What can be given:
#   PYTHON=python3.12    the interpreter that .venv is made from
#   TORCH_INDEX=URL      the package index of another torch build, for example
#                        https://download.pytorch.org/whl/cpu (small, no CUDA)
#   STUDY=FILE ARGS=...  another study, or options of `python -m studies.sweep`
#   TESTS=... JOBS=N     what pytest runs, on how many processes

PYTHON ?= python3
TORCH_INDEX ?=
STUDY ?=
ARGS ?=
TESTS ?=
JOBS ?= 2

# A shell that forbids byte code would have torch and transformers compiled anew in each of a test run's processes.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# Byte code of these, and of all that they import, is written by the install: for any shell, once.
IMPORTED := hwsim.api, qat.hf, qat.loop, qat.exporter, studies.report, studies.trial, scipy.stats, sklearn.metrics, \
	matplotlib.figure, matplotlib.backends.backend_agg, matplotlib.backends.backend_svg, duckdb, jinja2, moocore
STAMP := .venv/.bitwright-installed

.PHONY: setup sweep test clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

# The project is installed in editable mode: only a change of what it depends on installs again.
# --no-compile: byte code of the few modules that are used is written when they are first imported, below; compiling
# all of torch and transformers would double the time of an install.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Bitwright needs Python 3.11 or later; %s is %s. Try: make PYTHON=python3.12" % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,report,text]'
	@$(BIN)/python -c 'import $(IMPORTED)'
	@touch $@

sweep:
	@begin=$$(date +%s); \
	$(MAKE) --no-print-directory setup || exit $$?; \
	installed=$$(date +%s); \
	$(BIN)/python -m studies.sweep $(STUDY) $(ARGS); status=$$?; \
	finished=$$(date +%s); \
	echo "install: $$((installed - begin)) s, study: $$((finished - installed)) s"; \
	exit $$status

# A file's tests stay together: what its fixtures build (students, exports, trained teachers) is built once.
test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --durations 15 $(TESTS)

# Keeps results (bitwright-runs/): deleting hours of training is nobody's intention.
clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
