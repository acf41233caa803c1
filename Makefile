# make demo   set up, fetch the sample, run the whole cycle, print where the report is
# make test   set up, run every test
# make loop   the whole cycle on real data: train, serve, watch, learn, try, promote; five minutes on two free cores
# make check  lint, format and types
# make bench  the measurements quoted in docs/log.md

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DIR    ?= danlu-workspace/loop
READY  := $(VENV)/.ready

export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo loop test check bench
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "danlu needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,audit,bench,mt,parity,postgres,serve,tracking,tune,zh]'
	touch $(READY)

demo: setup
	$(BIN)/danlu fetch zh-reviews
	$(BIN)/danlu run recipes/reviews.yaml
	@echo; echo "danlu is in $(BIN); to call it by its name: . $(BIN)/activate"

loop: setup
	$(BIN)/danlu fetch zh-reviews
	$(BIN)/python bench/loop.py --folder $(DIR) --into docs/loop

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	for sample in zh-reviews zh-poetry en-zh-ui mnist; do $(BIN)/danlu fetch $$sample || exit 1; done
	$(BIN)/python bench/dedup.py danlu-workspace/samples/zh-poetry
	PYTHONPATH=src:tests $(BIN)/python bench/parity.py
	$(BIN)/python bench/decoding.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/index.py
	PYTHONPATH=src:tests $(BIN)/python bench/kills.py
	PYTHONPATH=src:tests $(BIN)/python bench/faults.py
	PYTHONPATH=src:tests $(BIN)/python bench/serving/faults.py --swaps 1000 --minutes 30
	$(BIN)/python bench/serving/rivals.py danlu-workspace/rivals
	$(BIN)/python bench/plans.py
	$(BIN)/python bench/mnist.py
	$(BIN)/python bench/against_trainer.py poetry
	$(BIN)/python bench/against_trainer.py translate
	$(BIN)/python bench/training.py gpt
	$(BIN)/python bench/training.py classify
	$(BIN)/python bench/training.py quality
	$(BIN)/python bench/lineage/build.py --folder danlu-workspace/lineage && $(BIN)/python bench/lineage/run.py --folder danlu-workspace/lineage && $(BIN)/python bench/lineage/tell.py --folder danlu-workspace/lineage --into docs/lineage
