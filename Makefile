# The whole course in single words; `make` alone lists them. Each target first creates or updates .venv.
PYTHON ?= python3
# To try a part of it: make course PROFILE=ci ONLY="00 07", make test TESTS=tests/test_paths.py
PROFILE := laptop
ONLY :=
TESTS :=
PY := .venv/bin/python
STAMP := .venv/.stamp
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
STRIP := .venv/bin/nbstripout --keep-id --extra-keys "metadata.papermill cell.metadata.papermill"

# Threads that wait should sleep: where they spin, two of them on shared cores slow each other down many times over.
export OMP_WAIT_POLICY := passive

.DEFAULT_GOAL := help
.PHONY: help course lab slides seminar site test lint format bench drill fresh checkpoints

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

course: $(STAMP) ## run every notebook on the embedded data; pages and a summary in build/course
	$(PY) -m course_lib run --profile $(PROFILE) --out build/course $(if $(ONLY),--only $(ONLY))

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab --ip=127.0.0.1 notebooks/00_start_here.ipynb

seminar: $(STAMP) ## students' and teacher's notebooks, lesson plans and marking sheet: build/seminar.zip
	$(PY) -m course_lib seminar

slides: $(STAMP) ## a deck of slides of every notebook in build/slides (needs npm once)
	$(PY) -m course_lib slides

site: $(STAMP) ## the site in build/site: runs the notebooks first, or EXECUTED=folder (needs npm once)
	$(PY) -m course_lib site $(if $(EXECUTED),--executed $(EXECUTED))

test: $(STAMP) ## run all tests
	$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(STAMP) ## check style, and that the notebooks are committed without outputs
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(if $(NOTEBOOKS),$(STRIP) --verify $(NOTEBOOKS))

format: $(STAMP) ## repair what lint complains about
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(if $(NOTEBOOKS),$(STRIP) $(NOTEBOOKS))

bench: $(STAMP) ## measure ours against naive and against peers
	@test -e benchmarks/__main__.py || { echo "There are no benchmarks yet: benchmarks/__main__.py is missing." >&2; exit 1; }
	$(PY) -m benchmarks

drill: $(STAMP) ## kill the commands at random moments, fill their disk, and count what they survive
	$(PY) -m drills

fresh: ## clone the last commit into an empty folder and do there what this file and README say; an hour
	$(PYTHON) -m drills.fresh

checkpoints: $(STAMP) ## train the embedded checkpoints again
	$(PY) -m course_lib checkpoints

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else f"Python 3.10 or newer is needed, $(PYTHON) is {sys.version.split()[0]}. Try: make PYTHON=python3.12 ...")'
	@echo "Setting up .venv; the first time PyTorch is downloaded, which takes a few minutes."
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check --editable '.[lab,test,dev,compare,export,seminar,site]'
	@touch $@
