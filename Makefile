# Two words are enough on a machine with git, make and Python 3.11 or newer:  make demo,  make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
OUT    ?= rounds-demo
SEED   ?= 0
DATA   ?=
# tests and demos on real films look here; unset or absent, those tests say so and are skipped
export ROUNDS_DATASETS ?= $(abspath ../shared/datasets)

# uv reads none of pip's settings: hand them on where they are set; else let it choose torch's build for this machine
UV := $(if $(PIP_CERT),SSL_CERT_FILE=$(PIP_CERT)) $(BIN)/uv
TORCH := $(if $(PIP_FIND_LINKS),$(foreach place,$(PIP_FIND_LINKS),--find-links $(place)),--torch-backend=auto)

.DEFAULT_GOAL := help
.PHONY: help setup demo pipeline test test-slow test-faults check check-deploy format lock simulate bench bench-serving clean images test-images load sbom audit-deps

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(READY)  ## make .venv and install everything once

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "rounds needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' || { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(UV) pip install --quiet --python $(BIN)/python $(TORCH) -r requirements-dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: $(READY)  ## the whole loop on phantoms, or on DATA=<any source>; OUT=DIR, SEED=N
	$(BIN)/rounds demo $(if $(DATA),--data $(DATA)) --out $(OUT) --seed $(SEED)

pipeline: $(READY)  ## the DVC pipeline: prepare, train, export, evaluate, register what has changed
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/dvc repro

test: $(READY)  ## the tests, with coverage
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not faults" --cov --cov-report=term --cov-fail-under=85

# AGAIN=1: only those that failed, one after the other
test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest $(if $(AGAIN),--last-failed --last-failed-no-failures none,-n 2 --dist loadfile) -m slow --timeout 900

test-faults: $(READY)  ## swaps, kills, full disks and hostile clients under load; prints what was lost
	$(BIN)/python -m pytest tests/faults -m faults

check: $(READY)  ## format, lint, types, import contracts, lock
	$(BIN)/ruff format --check src tests bench deploy
	$(BIN)/ruff check src tests bench deploy
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@! grep -nE '\+cpu|://|^-|file:|^/' requirements.lock requirements.txt requirements-dev.txt || { echo "the lock names a local build, path or address"; exit 1; }

format: $(READY)  ## put the code in order
	$(BIN)/ruff format src tests bench deploy
	$(BIN)/ruff check --fix src tests bench deploy

simulate: $(READY)  ## measured error rates beside the stated ones
	$(BIN)/python -m rounds.stats.simulate

# timm stays out: it pulls a torchvision that fits only the registry's own torch
EXTRAS := train ray cloud stores traces wandb pretrained dicom evidently bento dev
COMPILE = env -u UV_FIND_LINKS $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate
lock: $(READY)  ## resolve again: everything (requirements.lock), what serves, and what developers install
	$(COMPILE) --upgrade $(addprefix --extra ,$(EXTRAS)) pyproject.toml -o requirements.lock
	$(COMPILE) -c requirements.lock pyproject.toml -o requirements.txt
	$(COMPILE) -c requirements.lock $(addprefix --extra ,$(filter-out evidently,$(EXTRAS))) pyproject.toml -o requirements-dev.txt
	@# CUDA's packages come with the torch build of the machine, or not at all: naming them would force them on everybody
	sed -i -E '/^(nvidia|cuda|triton)[a-z0-9-]*==/d' requirements-dev.txt

bench: $(READY)  ## every budget beside its floor, as a table and in build/bench.json
	$(BIN)/python -m bench

# SECONDS= and ROUNDS= of every load: 3 and 3; the peers get an environment of their own below build/
bench-serving: $(READY)  ## our server beside its ceiling, a tutorial's, LitServe and BentoML, by wrk: build/bench-serving.json
	$(BIN)/python -m bench.serving $(if $(SECONDS),--seconds $(SECONDS)) $(if $(ROUNDS),--rounds $(ROUNDS))

images:  ## build the container images (buildah, or TOOL=docker); BASE=IMAGE, TAG=T, TORCH='uv words'
	$(PYTHON) deploy/docker/build.py

test-images: $(READY)  ## start the images as they are meant to be started, and ask them
	ROUNDS_IMAGES=1 $(BIN)/python -m pytest -q -rA tests/deploy/test_deploy_images.py --timeout 900

# URL= loads a server that runs elsewhere in place of one of its own; KEY= goes along
load: $(READY)  ## Locust against a server of its own, or URL=; SECONDS=S, USERS=N; table and build/load.json
	$(BIN)/python deploy/load/run.py $(if $(URL),--url $(URL)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(USERS),--users $(USERS))

sbom: $(READY)  ## what an installation consists of, as CycloneDX: build/sbom.json
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON -o build/sbom.json
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --mc-type application --output-reproducible --of JSON -o build/sbom-everything.json

audit-deps: $(READY)  ## look what is locked up in the database of known vulnerabilities; says so where none is reached
	$(BIN)/python deploy/audit.py requirements.txt

check-deploy: $(READY)  ## lint Dockerfiles, workflows, the unit, the proxy's and Prometheus' files
	$(BIN)/python deploy/check.py

clean:  ## drop the environment and what the tests left
	rm -rf $(VENV) build dist .coverage* .mypy_cache .ruff_cache .pytest_cache
