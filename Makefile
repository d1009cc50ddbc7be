# Two commands: `make quickstart` trains, evaluates and generates; `make test` checks everything. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
QUICKSTART := runs/quickstart

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
