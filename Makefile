SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: demo model test cluster-test tools lint lock clean help FORCE

BIN := .venv/bin
SLIPWAY := $(BIN)/slipway

COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 $(ARGS)
AS_DEV := --constraints requirements/dev.lock

demo: .venv/.train-installed ## The whole job on drawn images: data to archive, served and asked
	$(SLIPWAY) data synth --name demo
	@$(MAKE) --no-print-directory build/demo.mar NAME=demo
	$(SLIPWAY) try --name demo

model: .venv/.train-installed ## The same on yours: make model DATA=FOLDER_OR_ARCHIVE NAME=steel
	$(SLIPWAY) data import '$(DATA)' --name '$(NAME)'
	@$(MAKE) --no-print-directory build/$(NAME).mar
	$(SLIPWAY) try --name '$(NAME)'

test: .venv/.dev-installed ## All tests but those for a cluster or GPU; ARGS="-k archive" takes some
	$(BIN)/pytest -m 'not cluster and not gpu' $(ARGS)

cluster-test: .venv/.dev-installed ## The demo's image on the cluster of KUBECONFIG: make cluster-test IMAGE=REPOSITORY:TAG
	$(BIN)/python helm/tools.py
	IMAGE='$(IMAGE)' $(BIN)/pytest -m cluster $(ARGS)

tools: .venv/.train-installed ## Helm and kubectl into build/tools, where they are not on the path
	$(BIN)/python helm/tools.py

lint: .venv/.dev-installed ## Style, types, the pipeline's file, the lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml
	$(BIN)/pytest tests/test_requirements.py

lock: .venv/.dev-installed ## Make requirements/*.lock fit pyproject.toml; ARGS=--upgrade takes new versions
	$(COMPILE) pyproject.toml --extra dev --output-file requirements/dev.lock
	$(COMPILE) pyproject.toml --extra train $(AS_DEV) --output-file requirements/train.lock
	$(COMPILE) pyproject.toml --extra serve $(AS_DEV) --output-file requirements/serve.lock
	$(COMPILE) requirements/gpu.in $(AS_DEV) --output-file requirements/gpu.lock
	$(COMPILE) requirements/installer.in $(AS_DEV) --output-file requirements/installer.lock

clean: ## Remove .venv, caches, and build with every run and archive in it
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .dvc/tmp *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stages after the data, by the commands of dvc.yaml. Training knows by itself whether it is done, and then leaves its file alone;
# what follows is made again when that file, the code or the parameters are newer.
RUN := build/$(NAME)

$(RUN)/train/train.json: FORCE
	$(SLIPWAY) train --name '$(NAME)'

$(RUN)/export/model.onnx: $(RUN)/train/train.json params.yaml $(wildcard cli/*.py model/*.py serving/archive.py serving/handler/*.py)
	$(SLIPWAY) export --name '$(NAME)'

$(RUN)/export/model.int8.onnx: $(RUN)/export/model.onnx
	$(SLIPWAY) quantise --name '$(NAME)'

$(RUN)/evaluate/evaluation.json: $(RUN)/export/model.int8.onnx
	$(SLIPWAY) evaluate --name '$(NAME)'

$(RUN)/gate.json: $(RUN)/evaluate/evaluation.json
	$(SLIPWAY) gate --name '$(NAME)'

$(RUN).mar: $(RUN)/gate.json
	$(SLIPWAY) package --name '$(NAME)'

# One environment for all; a stamp names the lock file that it holds. An interrupted installation leaves none and starts over.
.venv/.%-installed: requirements/%.lock requirements/installer.lock requirements/install pyproject.toml
	@bash requirements/install $*
	@touch $@

# Before anything is installed for nothing.
ifneq ($(filter model,$(MAKECMDGOALS)),)
$(if $(and $(DATA),$(NAME)),,$(error wanted make model DATA=SRC NAME=RUN, got DATA=$(DATA) NAME=$(NAME): data/README.md says what SRC may be))
endif
