# Two commands do everything on a fresh machine: `make leaderboard` and `make test`.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: leaderboard test lint clean

leaderboard: $(VENV)/.ready  ## score every entry on the built-in data
	$(RUN) -m local_scorer leaderboard

test: $(VENV)/.ready-dev  ## lint and run all tests
	$(RUN) -m ruff check .
	$(RUN) -m pytest

$(VENV)/.ready: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch and what else is needed into $(VENV), once: a few GB, some minutes."
	$(RUN) -m pip install --quiet -r requirements.txt
	touch $@

$(VENV)/.ready-dev: requirements.txt requirements-dev.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $(VENV)/.ready $@

clean:  ## remove the environment, the built-in data and the default run
	rm -rf $(VENV) data/synthetic* runs/default
