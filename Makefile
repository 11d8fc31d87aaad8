# The two commands: `make demo` and `make test`. Both set up .venv first if it is missing or the lock has changed.
include telemetry.env
export $(shell sed 's/=.*//' telemetry.env)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUDGET ?=
MODEL ?= $(if $(BUDGET),support-budget,support-intents)
STORE ?= store
DATA ?= ../shared/data/banking77 ../shared/data/clinc150_oos
PAIRS ?= ../shared/data/tatoeba_en_de ../shared/data/scitldr_abstract
STORIES ?= ../shared/models/stories260K
OUT ?= build/bench/rows.json
PEERS ?=
MINUTES ?= 20
SEED ?= 1
KILLS ?= 10
SHARE ?= 1
SIZE ?= 1GB
ROUNDS ?= 5
S3 ?=
WORK ?= build/bench-registry

# torch without CUDA for Python 3.11 on Linux, x86-64. PyPI does not have it: it is taken where pip is pointed at it, and passed over where not.
TORCH_CPU := 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
PORT ?= 4200

.PHONY: demo up down test install lint types unit soak chaos overhead unattended bench bench-registry bench-generation bench-distillation bench-training bench-elastic bench-scale bench-planning bench-text-to-text bench-stories reproduce digests audit sbom docs clean help

demo: install  ## build MODEL by flow (BUDGET="12MB 2ms 6pt": the cheapest that holds it), publish it to the folder registry STORE, print the table
	$(BIN)/python -m flows build $(MODEL) $(if $(BUDGET),--budget "$(BUDGET)") --publish $(STORE) --alias candidate

up: install  ## server, work pool, deployments and a worker on this machine, until `make down`; PORT=4200
	$(BIN)/python -m flows.service up --port $(PORT)

down: install  ## end what `make up` started
	$(BIN)/python -m flows.service down --port $(PORT)

test: lint  ## lint, then types beside the tests, which wait for their servers now and then
	$(MAKE) --jobs 2 types unit

install: $(VENV)/installed

$(VENV)/installed: requirements.lock requirements.sha256 pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'slm-factory needs Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=26"
	# by its own name: of files whose digests are allowed, pip takes the one whose digest it knows beforehand, and so PyPI's with CUDA
	sed -n 's/^\(torch==.*\)/\1+cpu --hash=sha256:$(TORCH_CPU)/p' requirements.lock >$(VENV)/torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r $(VENV)/torch.txt 2>$(VENV)/torch.log || \
		echo "torch is PyPI's: its build without CUDA was not installed, $(VENV)/torch.log says why; on another system than Linux, x86-64, Python 3.11: make install TORCH_CPU=DIGEST"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.sha256
	# what a package needs on this system alone, as torch its CUDA; elsewhere nothing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	# all cores at once, which pip does not; packages' templates are no Python. Where PYTHONDONTWRITEBYTECODE is set, as in many images,
	# every process would otherwise compile what it imports: five seconds for torch, as many for Prefect
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >$(VENV)/compiled.log 2>&1
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

unit: install
	# tests start hundreds of processes, and each would compile what it imports
	$(BIN)/python -m compileall -q pipelines flows registry tests benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 30 --durations-min 5

soak: install  ## the registry's long tests: MINUTES=20 SEED=1; the parsers' fuzzer is atheris where it installs
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	$(BIN)/python -m tests.registry.soak --minutes $(MINUTES) --seed $(SEED)

chaos: install  ## builds that are killed and disturbed: MINUTES=20 SEED=1 KILLS=10; the disks that are filled are mounts, so as root
	PYTHONPATH=.:registry $(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --kills $(KILLS) --page docs/reliability.md

overhead: install  ## what the flow adds to `dvc repro`: benchmarks/RESULTS.md
	PYTHONPATH=.:registry $(BIN)/python -m tests.flows.overhead --page benchmarks/RESULTS.md

unattended: install  ## a tiny model on a schedule of one minute, its data changing, its processes killed: MINUTES=60 SEED=1
	PYTHONPATH=.:registry $(BIN)/python -m tests.chaos.hour --minutes $(MINUTES) --seed $(SEED) --page docs/reliability.md

bench: install  ## the board: DATA="folder ..." OUT=rows.json PEERS="model2vec olive openvino setfit" (none: without them; each gets an environment of its own)
	$(BIN)/python -m benchmarks --data $(DATA) --out $(OUT) --work build/bench --table benchmarks/RESULTS.md --picture docs/board.svg --budgets --peers $(PEERS)

bench-registry: install  ## publish and pull against the raw store: SIZE=1GB ROUNDS=5 WORK=/dev/shm/bench S3=s3://bucket?endpoint_url=... (default: moto, Ceph)
	PYTHONPATH=.:registry $(BIN)/python -m benchmarks.registry --size $(SIZE) --rounds $(ROUNDS) --work $(WORK) --table benchmarks/REGISTRY.md $(if $(S3),--s3 "$(S3)")

bench-generation: install  ## how fast an exported model writes, beside transformers
	$(BIN)/python -m benchmarks.generation --page benchmarks/RESULTS.md

bench-distillation: install  ## tokens/s of training on stored signals, beside TRL (installed here) and plain cross-entropy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps trl==1.16.0
	$(BIN)/python -m benchmarks.distillation --page benchmarks/RESULTS.md

bench-training: install  ## texts/s of training a classifier, beside transformers' Trainer
	$(BIN)/python -m benchmarks.training --page benchmarks/RESULTS.md

bench-elastic: install  ## parts of an elastic student beside the same shapes distilled alone, three seeds (hours; goes on where it was cut off): SHARE=0.33 of the board's passes
	$(BIN)/python -m benchmarks.elastic --data $(firstword $(DATA)) --work build/bench-elastic --share $(SHARE) --page benchmarks/RESULTS.md

bench-scale: install  ## what a second worker gives: docs/scale.md
	$(BIN)/python -m benchmarks.scale --work build/bench-scale --page docs/scale.md

bench-planning: install  ## the plan of one model among many, beside `dvc status`: docs/scale.md
	$(BIN)/python -m benchmarks.planning --work build/bench-planning --page docs/scale.md

bench-text-to-text: install  ## summarization and translation from fresh weights, beside a trivial answer
	$(BIN)/python -m benchmarks.text_to_text --data $(PAIRS) --work build/bench-text-to-text --page benchmarks/RESULTS.md

bench-stories: install  ## a real checkpoint through the whole factory: docs/stories.md
	$(BIN)/python -m benchmarks.stories --model $(STORIES) --work build/bench-stories --page docs/stories.md

reproduce: install  ## build MODEL twice from scratch and compare the published files' digests
	$(BIN)/python -m flows reproduce $(MODEL)

TOOLS := build/tools
$(TOOLS)/ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1 cyclonedx-bom==7.5.0
	touch $@

digests: $(TOOLS)/ready  ## write requirements.sha256 anew, after a change of requirements.lock
	$(TOOLS)/bin/uv pip compile requirements.lock --no-deps --generate-hashes --no-header --no-annotate --quiet --python-version 3.11 --output-file build/digests
	{ grep '^#' requirements.sha256; cat build/digests; } >build/digests.all
	mv build/digests.all requirements.sha256

audit: $(TOOLS)/ready  ## known vulnerabilities of what requirements.lock pins, by pip-audit; fails too where one cannot be asked about
	$(TOOLS)/bin/pip-audit -r requirements.lock --no-deps --disable-pip --strict --progress-spinner off

sbom: install $(TOOLS)/ready  ## the bill of materials of what is installed: build/sbom.json, CycloneDX
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible --of JSON -o build/sbom.json $(BIN)/python

docs: install  ## write the generated parts of the documentation anew
	$(BIN)/python -m pipelines.documentation
	$(BIN)/python -m tests.families_table

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile

clean:  ## remove what was built; the environment and the store stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
