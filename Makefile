# Every habit of the project is one target here; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-mosquitto test check features bench soak serve clean
# Debian keeps mosquitto where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/sbin
CONFIG ?= fleetgate.yaml

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "%-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/stamp ## make .venv with everything that constraints.txt names; quick when nothing changed

.venv/stamp: pyproject.toml constraints.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: setup ## the whole walk on this machine, with nothing else installed
	.venv/bin/python -m device_sim.demo

demo-mosquitto: setup ## the same walk on real mosquitto brokers; installs mosquitto when it may
	scripts/system-packages
	.venv/bin/python -m device_sim.demo_mosquitto

test: setup ## every test but the soak; installs the Debian packages they need, or names them
	scripts/system-packages
	.venv/bin/python -m pytest -m 'not soak' -n 3 --dist loadfile

check: setup ## style, types and floors
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/test_floors.py

features: setup ## one line for each id of docs/features.md: pass, fail or missing
	@scripts/system-packages
	@.venv/bin/python -m tests.features_report

bench: setup ## figures against their bars; ONLY=P1,P4 runs some, STORES=tinydb,sqlite some stores
	.venv/bin/python -m tests.bench.run $(if $(ONLY),--only $(ONLY)) $(if $(STORES),--stores $(STORES))

soak: setup ## F-23 to F-31 with 20 seeds (SEEDS=2: fewer) in an hour at most, then the longest tests
	scripts/system-packages
	.venv/bin/python -m tests.soak $(if $(SEEDS),--seeds $(SEEDS)); seeds=$$?; .venv/bin/python -m pytest -m soak && exit $$seeds

serve: setup ## run the installation whose settings are in CONFIG
	.venv/bin/fleetgate serve -c $(CONFIG)

clean: ## remove what the targets made, never an installation
	rm -rf .venv build dist demo-run bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
