# Two commands: `make quickstart` trains, evaluates and generates; `make test` checks everything. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
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

$(VENV)/installed: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-gguf.txt requirements-dev.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@ $(VENV)/installed

# Compiles every TPU kernel for v4, v5e, v5p and v6e with libtpu, in an environment of its own; needs no TPU, runs nothing.
TPU_VENV := .venv-tpu
.PHONY: test-tpu
test-tpu: $(TPU_VENV)/installed
	$(TPU_VENV)/bin/python -m kernels.compile --jobs=2
	$(TPU_VENV)/bin/python -m kernels.compile --devices=4 --batch=4 --width=1024 --dtype=bfloat16
	$(TPU_VENV)/bin/python -m pytest tests/kernels/test_tpu_compiler.py

$(TPU_VENV)/installed: requirements-tpu-compiler.txt
	test -x $(TPU_VENV)/bin/python || $(PYTHON) -m venv $(TPU_VENV)
	$(TPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tpu-compiler.txt
	touch $@

# Compiles every GPU kernel for an H100 with XLA's own compiler, in an environment of 2 GB; needs no GPU, and runs nothing.
GPU_VENV := .venv-gpu
.PHONY: test-gpu
test-gpu: $(GPU_VENV)/installed
	$(GPU_VENV)/bin/python -m kernels.compile --target=h100 --batch=2
	$(GPU_VENV)/bin/python -m kernels.compile --target=h100:2 --devices=2 --batch=2 --width=1024 --dtype=bfloat16

$(GPU_VENV)/installed: requirements-gpu-compiler.txt
	test -x $(GPU_VENV)/bin/python || $(PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-gpu-compiler.txt
	touch $@
