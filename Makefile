# What a person needs: `make demo` shows everything once, `make up` stays, `make test` checks everything.

PYTHON ?= python3.11
DATA ?= data/up
PORT ?= 8000
BIN := .venv/bin

# A dozen processes share what the first one compiles, also where the environment forbids it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install up demo check test-fast test test-engines tune-proof faults faults-slow lint compiled lock docs fuzz-api node-sdk vendor pictures release clean bench-batch bench-control bench-planning bench-run bench-redis bench-sync bench-lanes bench-idle bench-order bench-switching switching bench-deadlines bench-estimate bench-webhooks bench-tenants bench-limits bench-canary bench-map bench-evals bench-ensembles bench-gpu bench-lines bench-viewers

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

install: ## Set up .venv with the locked requirements and this project
	@command -v $(PYTHON) >/dev/null || { echo "[install] $(PYTHON) is missing: install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) requirements/install.py

up: install ## Start the whole platform on this machine and stay (DATA=folder PORT=number)
	@$(BIN)/penstock up --data $(DATA) --port $(PORT)

demo: install ## Start it, send a batch of chat requests through a real vLLM, show the answers, stop
	@$(BIN)/penstock demo

# Tiers. Each holds the ones above it; the slowest tests are listed at the end.
# Tests wait a third of their time: three at a time on two cores. Those that share servers stay together (conftest.py).
TESTERS ?= 3
PYTEST = $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder --durations 10

check: install lint ## Before each commit, under a minute: style, imports, types, rules without servers
	@$(BIN)/python -m pytest -q -n $(TESTERS) tests/unit tests/architecture

test-fast: install lint ## While you work, under five minutes: all that needs no worker process
	@$(PYTEST) -q tests/unit tests/architecture tests/store tests/service tests/api tests/cli

test: install ## Check everything, with the real vLLM
	@$(MAKE) --no-print-directory -j 2 lint node-sdk compiled
	@echo "[test] pytest, with real servers and the real vLLM: this takes some minutes"
	@$(PYTEST)

test-engines: install ## What starts engines again and again: vLLM, llama.cpp and transformers side by side, and their deaths
	@$(BIN)/python -m pytest -m engines --timeout 1800 --durations 10

# Faults for a while, then the history checker; then what `make test` draws some of: all meetings of two moves, many
# interleavings and lives, and each failure of each call.
SECONDS ?= 120
SEED ?= 1
INTERLEAVINGS ?= 10000

tune-proof: install ## `penstock tune` on the real vLLM with a planted bad default: the winner is a fifth faster at least (some ten minutes)
	@$(BIN)/python -m pytest -s -m engines --timeout 3600 tests/worker/tuning

faults: install ## Let a nemesis strike under load, then check the history (SECONDS=600 SEED=1 INTERLEAVINGS=10000, POOL=1: two hosts of a pool, ENSEMBLES=1: ensembles among the load)
	@PYTHONPATH=tests $(BIN)/python -m faults.run --seconds $(SECONDS) --seed $(SEED) $(if $(POOL),--pool) $(if $(ENSEMBLES),--ensembles)
	@[ "$(INTERLEAVINGS)" = 0 ] || PENSTOCK_INTERLEAVINGS=$(INTERLEAVINGS) PENSTOCK_SEED=$(SEED) PENSTOCK_MEETINGS=all PENSTOCK_EXAMPLES=100 \
		PENSTOCK_FAILURES=all $(BIN)/python -m pytest -q --timeout 3600 tests/store/test_interleavings.py \
		tests/store/test_two_connections.py tests/store/test_any_order.py tests/service/test_faulty_store.py

faults-slow: install ## What `make test` leaves out of all rooms: further kinds of faults, deaths of the real vLLM, 50 rolling restarts, everything without Redis
	@$(BIN)/python -m pytest -m "slow and not engines" -n 2 --dist loadfile --timeout 1800
	@ROLLING_RESTARTS=50 $(BIN)/python -m pytest --timeout 1800 tests/faults/test_stopped_workers.py -k in_turn
	@PENSTOCK_TEST_WITHOUT_REDIS=1 $(BIN)/python -m pytest tests/e2e/test_echo.py

fuzz-api: install ## Ask a real platform at random what its OpenAPI page has, well meant and not (ARGS="--minutes 10 --seed 1")
	@$(BIN)/python requirements/fuzz.py
	@PYTHONPATH=tests $(BIN)/python -m fuzz.api $(ARGS)

pictures: install ## Take README's pictures of the console anew (needs chromium)
	@PYTHONPATH=tests $(BIN)/python -m console.pictures

vendor: ## Fetch the console's vendored scripts anew, as its vendor.toml lists them (needs npm)
	@$(PYTHON) requirements/vendor.py

compiled:  # once, beside the look at types: else each tester compiles each test
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true

node-sdk: ## Install OpenAI's SDK for Node, if npm is there, for tests/e2e/test_openai_node.py
	@cd tests/e2e/node && npm install --no-audit --no-fund --ignore-scripts --silent \
		|| echo "[node-sdk] npm can't install it: tests/e2e/test_openai_node.py will be skipped"

lint: install ## Check style, the direction of imports, and types
	@echo "[lint] ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@echo "[lint] import-linter"
	@$(BIN)/lint-imports --no-cache
	@echo "[lint] mypy"
	@$(BIN)/mypy

bench-batch: install ## Measure whole files against `vllm run-batch` on the real vLLM (ARGS="--files A B --repeats 3 --lines 2000")
	@PYTHONPATH=tests $(BIN)/python -m bench.batch $(ARGS)

bench-control: install ## Measure the control plane alone on the simulated engine (LINES="100000 300000 1000000" ARGS="--jobs 2000")
	@PYTHONPATH=tests $(BIN)/python -m bench.control --lines $(or $(LINES),50000) $(ARGS)

bench-tenants: install ## Measure what one tenant that asks too much costs five others (ARGS="--kinds jobs keys --seconds 10")
	@PYTHONPATH=tests $(BIN)/python -m bench.tenants $(ARGS)

bench-canary: install ## Count what a canary of 10 % gets of calls, sessions and batches, and time rollbacks (ARGS="--calls 400 --batches 100")
	@PYTHONPATH=tests $(BIN)/python -m bench.canary $(ARGS)

bench-limits: install ## Count what 10,000 requests over eight API processes get through a limit of 1,000 (ARGS="--processes 2 --requests 2000")
	@PYTHONPATH=tests $(BIN)/python -m bench.limits $(ARGS)

bench-planning: install ## Measure validation and planning of large files (LINES="100000 300000 1000000")
	@PYTHONPATH=tests $(BIN)/python -m bench.planning --lines $(or $(LINES),100000 300000 1000000)

bench-run: install ## `penstock run` against `vllm run-batch`: the same answers, started cold; then its speed, both warm (ARGS="--lines 500 --repeats 1")
	@PYTHONPATH=tests $(BIN)/python -m bench.run_answers
	@PYTHONPATH=tests $(BIN)/python -m bench.batch --files H --json data/bench-run.json $(ARGS)

bench-redis: install ## Measure what a Redis that loses everything every 2 s costs (LINES="20000")
	@PYTHONPATH=tests $(BIN)/python tests/bench/redis_loss.py --lines $(or $(LINES),20000)

bench-sync: install ## Measure what the path of a waiting call costs, against the engine itself (ARGS="--callers 1 8")
	@PYTHONPATH=tests $(BIN)/python -m bench.sync $(ARGS)

bench-lanes: install ## Measure waiting calls beside a batch on the real vLLM (ARGS="--trace FILE --rounds 3 --rate 4")
	@PYTHONPATH=tests $(BIN)/python -m bench.lanes $(ARGS)

bench-idle: install ## Measure what 1,000 idle streams cost one API process, on the simulated engine (ARGS="--streams 2000")
	@PYTHONPATH=tests $(BIN)/python tests/bench/idle_streams.py $(ARGS)

bench-viewers: install ## What 20 people who watch a batch in the console cost waiting calls, on the simulated engine (ARGS="--viewers 200")
	@PYTHONPATH=tests $(BIN)/python -m bench.viewers $(ARGS)

bench-order: install ## Missed deadlines of the order of work against first come, first served, simulated (ARGS="--trace FILE")
	@PYTHONPATH=tests $(BIN)/python -m bench.order $(ARGS)

bench-switching: install ## What a pool's policy switches, loses and keeps, against FIFO, LRU and exhaustive, simulated (ARGS="--seeds 1 --engines 0")
	@PYTHONPATH=tests $(BIN)/python -m bench.switching $(ARGS)

switching: install ## Three real models take turns on one place: their switches against first come, first served (ARGS="--policies ours")
	@PYTHONPATH=tests $(BIN)/python -m bench.pool_proof $(ARGS)

bench-deadlines: install ## 30 jobs with mixed deadlines at 90 % load in real time, on the simulated engine (ARGS="--seed 3")
	@PYTHONPATH=tests $(BIN)/python -m bench.deadlines $(ARGS)

bench-estimate: install ## Estimates of three batches on the real vLLM against what they took (ARGS="--lines 1000")
	@PYTHONPATH=tests $(BIN)/python -m bench.estimate $(ARGS)

bench-gpu: install ## What a card says, part by part, in so many minutes; the next call goes on (MINUTES=25 ARGS="--parts a c --wheels FOLDER")
	@PYTHONPATH=tests $(BIN)/python -m bench.gpu --minutes $(or $(MINUTES),25) $(ARGS)

bench-webhooks: install ## Deliver 10,000 events to a receiver that fails half the time; then beside one that hangs (ARGS="--events 500")
	@PYTHONPATH=tests $(BIN)/python -m bench.webhooks $(ARGS)

bench-map: install ## A CSV and a Parquet file through `penstock map` on the simulated engine, killed on the way (ROWS=50000)
	@PYTHONPATH=tests $(BIN)/python -m bench.map_table --rows $(or $(ROWS),50000)

bench-evals: install ## Whether comparisons of evals are right as often as they say, on the real vLLM; then a million lines (ARGS="--parts scale --lines 100000")
	@PYTHONPATH=tests $(BIN)/python -m bench.evals $(ARGS)

bench-lines: install ## How long a page of a batch's lines takes: a million lines, 40,000 failed (LINES="100000" ARGS="--engine --repeats 5")
	@PYTHONPATH=tests $(BIN)/python -m bench.line_pages --lines $(or $(LINES),1000000) $(ARGS)

bench-ensembles: install ## What folding costs: member lines/s of a vote of three against plain lines/s, on the simulated engine (ARGS="--lines 20000")
	@PYTHONPATH=tests $(BIN)/python -m bench.ensembles $(ARGS)

release: install ## Build wheel and sdist, install each into an empty environment and try it; publishes nothing
	@$(BIN)/python requirements/release.py

docs: install ## Write the pages that are made of the code: docs/cli.md and docs/limits.md
	@$(BIN)/python -m penstock.cli.reference > docs/cli.md
	@$(BIN)/penstock settings --markdown > docs/limits.md

lock: ## Write the locks in requirements/ anew from direct.in and fuzz.in
	@$(PYTHON) requirements/install.py lock
	@$(BIN)/python requirements/fuzz.py lock

clean: ## Remove .venv, caches and data of demos
	rm -rf .venv .venv-fuzz tests/e2e/node/node_modules .pytest_cache .ruff_cache .mypy_cache .hypothesis .import_linter_cache build dist data
	find platform workers tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +
