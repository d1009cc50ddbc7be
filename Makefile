# Two commands: `make quickstart` trains, evaluates and generates; `make test` checks everything. Both set up .venv first.
# `make test PYTHON=python3.13` does it with that Python: where .venv is of another one, in .venv-3.13.
PYTHON ?= python3
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
WANTED := $(call version,$(PYTHON))
ifeq ($(WANTED),)
$(error PYTHON=$(PYTHON) does not run: name a Python of 3.11 or newer that is installed)
else ifneq ($(filter 2.% 3.6 3.7 3.8 3.9 3.10,$(WANTED)),)
$(error PYTHON=$(PYTHON) is Python $(WANTED): name one of 3.11 or newer)
endif
found = $(call version,$(1)/bin/python)
environment = $(1)$(addprefix -,$(if $(found),$(filter-out $(found),$(WANTED))))
VENV := $(call environment,.venv)
TPU_VENV := $(call environment,.venv-tpu)
GPU_VENV := $(call environment,.venv-gpu)
RUN := $(VENV)/bin/python
QUICKSTART := runs/quickstart
# On Linux glibc then asks for huge pages: steps on a CPU are up to half as fast again (docs/performance.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart test lint

quickstart: $(VENV)/installed
	$(RUN) train.py --config=configs/quickstart.py --workdir=$(QUICKSTART)
	$(RUN) eval.py --workdir=$(QUICKSTART)
	$(RUN) generate.py --workdir=$(QUICKSTART) --prompt="The following options " --max_bytes=300 --temperature=0.7 --show_chunks

# The same with another model of its size: make quickstart_hat, quickstart_word_pooled, quickstart_transformer, ...
quickstart_%: $(VENV)/installed
	$(RUN) train.py --config=configs/$@.py --workdir=runs/$@
	$(RUN) eval.py --workdir=runs/$@

test: $(VENV)/installed-dev lint
	$(RUN) -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

ENVIRONMENTS := $(VENV) $(TPU_VENV) $(GPU_VENV)
$(ENVIRONMENTS:=/pyvenv.cfg):
	$(PYTHON) -m venv --clear $(@D)
# Made again where the Python that it was made with is gone.
.PHONY: $(foreach name,$(ENVIRONMENTS),$(if $(call version,$(name)/bin/python),,$(name)/pyvenv.cfg))

$(VENV)/installed: requirements.txt $(VENV)/pyvenv.cfg
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-gguf.txt requirements-viewer.txt requirements-dev.txt $(VENV)/pyvenv.cfg
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/installed

# Compiles every TPU kernel for v4, v5e, v5p and v6e with libtpu, in an environment of its own; needs no TPU, runs nothing.
.PHONY: test-tpu
test-tpu: $(TPU_VENV)/installed
	$(TPU_VENV)/bin/python -m kernels.compile --jobs=2
	$(TPU_VENV)/bin/python -m kernels.compile --devices=4 --batch=4 --width=1024 --dtype=bfloat16
	$(TPU_VENV)/bin/python -m pytest tests/kernels/test_tpu_compiler.py

$(TPU_VENV)/installed: requirements-tpu-compiler.txt $(TPU_VENV)/pyvenv.cfg
	$(TPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tpu-compiler.txt
	touch $@

# Compiles every GPU kernel for an H100 with XLA's own compiler, in an environment of 2 GB; needs no GPU, and runs nothing.
.PHONY: test-gpu
test-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m kernels.compile --target=h100 --batch=2
	$(GPU_VENV)/bin/python -m kernels.compile --target=h100:2 --devices=2 --batch=2 --width=1024 --dtype=bfloat16

$(GPU_VENV)/installed: requirements-gpu-compiler.txt $(GPU_VENV)/pyvenv.cfg
	$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-gpu-compiler.txt
	touch $@
