# `make demo` and `make test` work on a fresh machine: they need python3 with venv, and no root.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HASHED := $(BIN)/python -m pip install --quiet --require-hashes
OUT ?= out/demo

# What checks for boards need beside Python. `make test` uses what is there and names the checks it had to skip.
BOARD_PACKAGES := g++-aarch64-linux-gnu g++-arm-linux-gnueabihf llvm qemu-user
# For microcontrollers: 112 MB to download.
BARE_PACKAGES := gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm

.PHONY: help env tools all-tools demo test lint types unit thorough zoo mutants docs wheel hashes clean

help:
	@echo "make demo   two real networks, pruned, proved, compiled and timed: minutes; writes $(OUT)/report.html"
	@echo "make test   tests, linter and type checker"
	@echo "make thorough  the tests with all cases of their matrices, of which make test takes a part: an hour"
	@echo "make zoo    torchvision's every architecture and timm's families, into docs/results/; goes on where it stopped"
	@echo "make mutants  200 small changes of the code that the tests are to notice, into docs/results/; goes on where it stopped"
	@echo "make tools  Debian packages for the checks on emulated boards (needs root)"
	@echo "make all-tools  those for microcontrollers and the compiler ziglang, too: 200 MB to download"
	@echo "make docs   the documentation, into site/"
	@echo "make env    only the environment in $(VENV), with the versions of constraints.txt, each file checked"
	@echo "make hashes the checksums of these versions' files, into requirements/"
	@echo "make clean  removes what the other targets made"

env: $(VENV)/.stamp

# Every file that is fetched has a checksum in requirements/. torch comes without CUDA where an index has that build, else as
# the registry has it, with what it asks for. The rest includes torchvision and timm, for their models' definitions.
$(VENV)/.stamp: pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else "reconvene needs Python 3.11 to 3.13; name one with make PYTHON=python3.11")'
	@echo "Installing into $(VENV); this takes a minute or two the first time."
	$(PYTHON) -m venv $(VENV)
	$(HASHED) --no-deps -r requirements/torch-cpu.txt 2> /dev/null || \
		$(HASHED) --no-deps -r requirements/torch.txt -r requirements/cuda.txt
	$(HASHED) -r requirements/environment.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

tools:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes $(BOARD_PACKAGES)
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends llvm-22 || \
		echo "There is no llvm-22 here; with LLVM before 16 estimates for the Raspberry Pi 5 are up to twice too dear."

all-tools: tools env
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes $(BARE_PACKAGES)
	$(HASHED) -r requirements/cross.txt

demo: env
	$(BIN)/python -m reconvene demo --out $(OUT)

# Side by side: the checker of types has one thread, and the tests end with one worker waiting for the other.
test: env
	+$(MAKE) --no-print-directory --jobs lint types unit

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The type checker does not see through the editable install, so it reads a real one; which is also asked for help from
# another folder, and for a file that is no Python.
types: env
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/installed .
	MYPYPATH=build/installed $(BIN)/mypy -p reconvene
	cd $(VENV) && PYTHONPATH=$(CURDIR)/build/installed bin/python -m reconvene --help > /dev/null
	cd $(VENV) && PYTHONPATH=$(CURDIR)/build/installed bin/python -c \
		"from reconvene.driver.reports.page import templates; templates().get_template('report.html.j2')"

unit: env
	$(BIN)/python -m pytest -n 2 --dist worksteal

thorough: env
	RECONVENE_WHOLE_MATRICES=1 $(BIN)/python -m pytest -n 2 --dist worksteal

zoo: env
	$(BIN)/python benchmarks/zoo.py --json docs/results/zoo.json --markdown docs/results/zoo.md

$(VENV)/.mutation-stamp: $(VENV)/.stamp
	$(HASHED) -r requirements/mutation.txt
	touch $@

mutants: $(VENV)/.mutation-stamp
	$(BIN)/python benchmarks/mutation.py out/mutation --report docs/results/mutation

$(VENV)/.docs-stamp: $(VENV)/.stamp
	$(HASHED) -r requirements/docs.txt
	touch $@

docs: $(VENV)/.docs-stamp
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs site

wheel: env
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# After a change of versions in constraints.txt or pyproject.toml. Needs the network.
hashes:
	$(PYTHON) -m venv $(VENV)-hashes
	$(VENV)-hashes/bin/python -m pip install --quiet 'uv>=0.9,<1' packaging
	$(VENV)-hashes/bin/python requirements/lock.py
	rm -rf $(VENV)-hashes

clean:
	rm -rf $(VENV) build dist out site .mypy_cache .pytest_cache .ruff_cache *.egg-info
