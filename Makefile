# Everything a fresh machine needs is Python 3.11, make and git; the rest is installed into .venv by these targets.
PYTHON ?= python3.11
NEWEST_PYTHON ?= $(shell .ci/newest-python)
WORKERS ?= 2
DRIVERS ?= 4
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_SINK ?= demo-labels
# Threads of torch that wait would keep the cores of the other process of `-n` busy.
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# glibc gives freed tensors back to the system and faults them in again: an eighth of the CPU time of the longest tests
# of models, whose process takes 0.7 GB more with this.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=268435456 MALLOC_TRIM_THRESHOLD_=536870912 MALLOC_TOP_PAD_=67108864
TEST_ENVIRONMENT := $(ONE_THREAD) $(KEEP_MEMORY)
SPREAD := -n $(WORKERS)

# Tests start hundreds of processes, each of which would compile raysp again, and pytest its rewritten tests.
unexport PYTHONDONTWRITEBYTECODE

# Quick tests of what the versions of libraries differ in. TORCH_TESTS are left out where torch is not installed.
VERSION_TESTS := tests/audio tests/corpus tests/storage tests/text
TORCH_TESTS := tests/sink tests/cli tests/ops tests/by_promise/export tests/training tests/evaluation/diff tests/labelling/reports \
    tests/labelling/engine/datasets --ignore tests/training/runs
NOT_THERE := transformers,ctranslate2,faster_whisper,jax,flax,peft,lhotse,pyannote,optax,flashlight,fast_ctc_decode,s3fs
TESTED := -m pytest -p tests.versions.without --fast $(SPREAD) $(PYTEST_ARGS)
# Python compiles what is imported, at the first import: a third of the time of an installation is left out.
INSTALL := -m pip --disable-pip-version-check install --quiet --no-compile
PIP := $(INSTALL) --only-binary :all:
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-fast test-oldest test-newest check format bench soak gpu docs audit clean

demo: $(VENV)/.installed
	$(BIN)/raysp run pipelines/label_digits.py --set sink.url=$(DEMO_SINK)

test: $(VENV)/.installed-dev
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m "not soak and not drivers" $(SPREAD) $(PYTEST_ARGS)

test-drivers: $(VENV)/.installed-dev
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m "drivers and not soak" -n $(DRIVERS) $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-dev
	$(TEST_ENVIRONMENT) $(BIN)/python $(TESTED) --without $(NOT_THERE) --hide -m "not lengthy"

test-oldest: .venv-oldest/.installed
	$(TEST_ENVIRONMENT) .venv-oldest/bin/python $(TESTED) --without $(NOT_THERE) $(VERSION_TESTS) $(TORCH_TESTS)
	rm -rf build/demo-oldest
	.venv-oldest/bin/raysp run pipelines/label_digits.py --set sink.url=build/demo-oldest

test-newest: .venv-newest/.installed
	@if .venv-newest/bin/python -m pip --quiet show torch 2>/dev/null; then \
	    set -x; $(TEST_ENVIRONMENT) .venv-newest/bin/python $(TESTED) --without $(NOT_THERE) $(VERSION_TESTS) $(TORCH_TESTS); \
	else \
	    echo "No CPU build of torch for $$(.venv-newest/bin/python -V): the tests that need it are passed over"; \
	    $(TEST_ENVIRONMENT) .venv-newest/bin/python $(TESTED) --without torch,$(NOT_THERE) $(VERSION_TESTS); \
	fi

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy raysp pipelines
	$(BIN)/python -m pytest tests/test_architecture.py tests/versions/test_imports.py tests/test_public_api.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks throughput

soak: $(VENV)/.installed-dev
	$(TEST_ENVIRONMENT) $(BIN)/python -m pytest -m "soak or hypothesis" --hypothesis-profile=default $(PYTEST_ARGS)

# Where a GPU is there may be no network, and a Python of its own with torch: nothing is installed.
gpu:
	$(or $(wildcard $(BIN)/python),python3) -m benchmarks gpu $(GPU_ARGS)

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file .mkdocs.yml
	@echo "The documentation is in build/docs/index.html"

# pip-audit asks PyPI for known vulnerabilities, so it needs the network. Lines of .audit-ignore: ID, then the reason.
audit: $(VENV)/.installed-audit
	@mkdir -p build
	$(BIN)/cyclonedx-py requirements --output-reproducible --of JSON -o build/sbom.json cluster/constraints.txt
	@echo "The bill of materials is in build/sbom.json"
	$(BIN)/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r cluster/constraints.txt \
	    $(addprefix --ignore-vuln ,$(shell sed -n 's/^\([A-Z][A-Za-z0-9-]*\) .*/\1/p' .audit-ignore)) || { echo \
	    "audit failed: correct the versions named above, or if there are none, PyPI's vulnerability service did not answer" >&2; exit 1; }

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest $(DEMO_SINK)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing raysp and what it needs into $(VENV): some minutes, once."
	$(BIN)/python $(INSTALL) -c constraints.txt -e .
	touch $@

# Not after the installation without extras, whose versions pip would settle once more.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing raysp and what the tests need into $(VENV): some minutes, once."
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.installed-audit: $(VENV)/.installed
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[audit]'
	touch $@

# The libraries alone can be installed for both environments at once: `-e .` writes into the checkout.
.venv-oldest/.installed .venv-newest/.installed: %/.installed: %/.libraries
	$*/bin/python $(PIP) --no-deps -e .
	touch $@

.venv-oldest/.libraries: pyproject.toml constraints.txt tests/versions/bounds.py
	@echo "Installing the oldest versions that pyproject.toml admits into .venv-oldest."
	rm -rf .venv-oldest && $(PYTHON) -m venv .venv-oldest
	@mkdir -p build && $(PYTHON) tests/versions/bounds.py oldest > build/oldest.txt
	.venv-oldest/bin/python $(PIP) $(TORCH) -r build/oldest.txt
	.venv-oldest/bin/python $(PIP) --no-deps silero-vad
	touch $@

# A Python of which only a GPU build of torch exists is tested without torch: that build brings gigabytes.
.venv-newest/.libraries: pyproject.toml constraints.txt tests/versions/bounds.py .ci/cpu-torch
	@echo "Installing the newest versions that pyproject.toml admits into .venv-newest."
	rm -rf .venv-newest && $(NEWEST_PYTHON) -m venv .venv-newest
	@mkdir -p build && $(PYTHON) tests/versions/bounds.py newest > build/newest.txt
	.venv-newest/bin/python $(PIP) -r build/newest.txt
	.ci/cpu-torch .venv-newest/bin/python $(TORCH)
	.venv-newest/bin/python $(PIP) --no-deps silero-vad
	touch $@
