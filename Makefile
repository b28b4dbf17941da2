# Everything runs from .venv, which is made on first use and kept while its recipe stays the same.
PYTHON_SYSTEM ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
TORCH := torch==2.13.0
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STAMP := $(VENV)/installed
GOLDENS ?=
SYSTEM ?=

.PHONY: help demo gallery test test-anywhere test-install lint parity bench bench-anitalker bench-aniportrait bench-apasco bench-audiodvp bench-audiodvp-reference bench-syncanimation bench-gpu bench-restore bench-mark browser comfyui registry kills slow clean
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml requirements.txt requirements-standalone.txt requirements-vocals.txt requirements-dev.txt constraints.txt
	test -x $(PYTHON) || $(PYTHON_SYSTEM) -m venv $(VENV) || \
		{ $(PYTHON_SYSTEM) -m venv --clear --without-pip $(VENV) && $(PYTHON_SYSTEM) -m pip --python $(PYTHON) install --quiet pip; }
	$(PIP) $(TORCH)
	$(PIP) $(TORCH) -r requirements.txt -r requirements-standalone.txt -r requirements-vocals.txt -r requirements-dev.txt
	$(PIP) --no-deps audio-separator
	$(PIP) --no-deps --editable .
	touch $@

build/typing/talking_portrait:
	mkdir -p build/typing
	ln -sfn ../.. $@

demo: $(STAMP) ## a talking video from the shipped portrait and speech
	mkdir -p out
	$(PYTHON) -m talking_portrait animate --out out/demo.mp4
	@echo "The talking portrait is in $(CURDIR)/out/demo.mp4"

gallery: $(STAMP) ## Instant's mouth shapes side by side, for looking at (PICTURES="..." instead of the shipped portrait; ARGS=...)
	$(PYTHON) -m tests.gallery $(PICTURES) $(ARGS)

# The networks of the tests are tiny: more threads only wait for each other.
test parity slow kills: export OMP_NUM_THREADS ?= 1
# As commands set it for themselves: tests that ask for two threads share two cores with other tests.
test parity slow kills: export GOMP_SPINCOUNT ?= 3000
# Hundreds of tests run a command of their own; where bytecode is not kept, each compiles the whole pack once more.
test parity slow kills: export PYTHONDONTWRITEBYTECODE :=

test: lint ## style, types and every test that needs nothing but this folder (and ../shared where it is)
	$(PYTHON) -m pytest -n auto --maxprocesses=4 --dist=loadfile
	$(PYTHON) -m pytest tests/parity -m parity --only-runnable

test-anywhere: $(STAMP) build/typing/talking_portrait ## the tests as other machines would run them: processors, threads, load (ARGS=...)
	$(PYTHON) -m tests.anywhere $(ARGS)

lint: $(STAMP) build/typing/talking_portrait
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

parity: $(STAMP) ## every golden of GOLDENS=<folder> (default ../shared/parity), of SYSTEM=<name> only
	$(PYTHON) -m pytest tests/parity -m parity $(if $(GOLDENS),--goldens=$(GOLDENS)) $(if $(SYSTEM),--system=$(SYSTEM))

kills: $(STAMP) ## commands ended at random moments of theirs (TIMES=100 for each; COMMANDS=animate ...; half an hour and more)
	$(PYTHON) -m tests.robustness.random_kills --times $(or $(TIMES),100) $(COMMANDS)

slow: $(STAMP) ## tests of more than half a minute, and of whole trainings
	$(PYTHON) -m pytest -m slow

test-install: $(STAMP) ## requirements.txt into a new Python without a compiler, as users install it (minutes)
	$(PYTHON) -m pytest tests/test_install.py -m slow

build/registry/bin/comfy:
	$(PYTHON_SYSTEM) -m venv build/registry
	build/registry/bin/python -m pip install --quiet --disable-pip-version-check comfy-cli comfy-test

registry: $(STAMP) build/registry/bin/comfy ## what the Comfy registry and comfy-test check without running anything
	$(PYTHON) -m tests.registry

bench: $(STAMP) ## how fast, on this machine
	$(PYTHON) -m tests.bench

bench-aniportrait: $(STAMP) ## AniPortrait's diffusion at real size (ANIPORTRAIT_DIR=<checkout>: beside the reference; ARGS=...)
	$(PYTHON) -m tests.bench.aniportrait $(ARGS)

bench-apasco: $(STAMP) ## APasco's diffusion (HALLO_DIR=<checkout>: beside the reference; ARGS=...)
	$(PYTHON) -m tests.bench.apasco $(ARGS)

bench-audiodvp: $(STAMP) ## AudioDVP on a synthetic person: how near held-out speech comes to the truth (ARGS=...)
	$(PYTHON) -m tests.bench.audiodvp --out $(or $(OUT),build/audiodvp) $(ARGS)

bench-audiodvp-reference: $(STAMP) ## AudioDVP's networks, face model and losses beside the reference in AUDIODVP_DIR (ARGS=...)
	$(PYTHON) -m tests.bench.audiodvp_reference $(ARGS)

bench-syncanimation: $(STAMP) ## SyncAnimation on a synthetic person: held-out pictures, poses, blinks and lips (ARGS=...)
	$(PYTHON) -m tests.bench.syncanimation --out $(or $(OUT),build/syncanimation) $(ARGS)

bench-gpu: ## every system on a graphics card, with the python3 at hand (OUT=<folder>; ARGS=...)
	python3 -m tests.bench.gpu --out $(or $(OUT),build/gpu) $(ARGS)

bench-mark: $(STAMP) ## in how many videos the invisible mark is found, and seems to be (ARGS="--portraits FOLDER --people FOLDER")
	$(PYTHON) -m tests.bench.mark $(ARGS)

bench-restore: $(STAMP) ## GFPGAN, and spandrel's where that package is installed
	$(PYTHON) -m tests.bench.restore

bench-anitalker: $(STAMP) ## AniTalker's speed, beside the reference in ANITALKER_DIR (its ESPnet in ANITALKER_SITE)
	$(PYTHON) -m tests.bench.anitalker $(ARGS)

browser: $(STAMP) ## every example workflow in ComfyUI's real front end (needs node, npm and chromium)
	$(PYTHON) -m pytest tests/browser -m browser

comfyui: $(STAMP) ## the pack inside the ComfyUI checkout that COMFYUI_DIR names
	$(PYTHON) -m pytest tests/comfyui -m comfyui

clean: ## forget .venv and everything built
	rm -rf $(VENV) build *.egg-info
	rm -f out/demo.mp4
