# stepfs: `make` prints what there is.
SHELL := /bin/sh
PYTHON ?= python3

VENV := .venv
READY := $(VENV)/ready
PYTEST := $(VENV)/bin/python -m pytest
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)

.PHONY: help
help:
	@echo 'make demo           see it work: a sample store, mounted, read, appended to, compacted'
	@echo 'make test           everything that is checked: style, types, all tests, a real systemd'
	@echo 'make check          style, types and the tests that need neither a mount nor a systemd'
	@echo 'make test-systemd   the service under a real systemd, in a container'
	@echo 'make test-shared    two hosts on shared file systems: SHARED_STORES (default gluster; juicefs, nfs,'
	@echo '                    slowfs, seaweedfs), SHARED_PART percent of the work (default 100)'
	@echo 'make test-releases  the packages and README on every release of Debian that is supported'
	@echo 'make coverage       what the tests reach, as a table and in build/coverage/html'
	@echo 'make soak           the long tests: model, crashes, fuzzing (SOAK_MINUTES, default 30)'
	@echo 'make picture        records the terminal session that README.md shows'
	@echo 'make bench          the table of speeds, also written to build/bench.json'
	@echo 'make dist           a wheel and an sdist in dist/'
	@echo 'make wheelhouse     wheels of stepfs and all that it needs, for machines without a compiler'
	@echo 'make deb            a Debian package for this release, in dist/'
	@echo 'make man            the manual pages in build/man/'
	@echo 'make install        PREFIX=/usr/local DESTDIR= (see systemd/install.sh)'
	@echo 'make uninstall      removes what make install with the same PREFIX and DESTDIR put there'
	@echo 'make clean          removes what these made in this directory'
	@echo
	@echo 'What is missing to do so is installed with apt-get, or named. PYTHON=... names another python3.'

# --- the environment: .venv, made once and again when pyproject.toml changes -----------------------

.PHONY: packages packages-test
packages:
	@systemd/packages.sh run

packages-test:
	@systemd/packages.sh test
	@# udev makes /dev/fuse everyone's; where there is none, as in a bare container, tests that run
	@# as other users need this:
	@[ -n "$$(find /dev/fuse -perm -0666)" ] || $(SUDO) chmod 0666 /dev/fuse

$(READY): pyproject.toml | packages
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	$(VENV)/bin/python -m pip install --quiet --editable . --group dev
	touch $@

.PHONY: venv
venv: packages $(READY)

# --- see it, check it ------------------------------------------------------------------------------

.PHONY: demo
demo: venv
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/demo.sh

.PHONY: picture
picture: venv
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python docs/record.py

.PHONY: lint
lint: packages-test $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

.PHONY: check
check: lint
	$(PYTEST) -n 2 --dist loadfile tests/storage tests/fusefs tests/conformance

# What changes limits of the whole machine, or measures how long others wait, runs first and alone.
ALONE := tests/mount/test_unseen_changes.py tests/faults/test_bounded_work.py tests/faults/test_nobody_waits.py

.PHONY: test
test: lint
	$(PYTEST) $(ALONE)
	$(PYTEST) -n 2 --dist loadfile $(ALONE:%=--ignore %)

.PHONY: test-systemd
test-systemd: packages-test $(READY)
	$(PYTEST) -v tests/container

.PHONY: test-shared
test-shared: packages-test $(READY)
	SHARED_STORES="$${SHARED_STORES:-gluster}" $(PYTEST) -v -rP tests/shared/test_file_systems.py

.PHONY: test-releases
test-releases: packages-test $(READY)
	$(PYTEST) -v -m releases --timeout 0 tests

.PHONY: coverage
coverage: packages-test $(READY)
	rm -rf build/coverage
	$(VENV)/bin/coverage run -m pytest -n 2 --dist loadfile --ignore tests/container
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage html --quiet --directory build/coverage/html
	$(VENV)/bin/coverage report

.PHONY: soak
soak: packages-test $(READY)
	SOAK_MINUTES=$${SOAK_MINUTES:-30} $(PYTEST) -v -m soak --timeout 0 tests

.PHONY: bench
bench: packages-test $(READY)
	@mkdir -p build
	$(VENV)/bin/python -m tests.bench --json build/bench.json

# --- make it, install it ---------------------------------------------------------------------------

.PHONY: dist
dist: venv
	$(VENV)/bin/python -m build --outdir dist .

.PHONY: wheelhouse deb
wheelhouse: packages
	packaging/wheelhouse.sh dist/wheelhouse

deb:
	@systemd/packages.sh deb
	packaging/deb.sh

.PHONY: man
man: venv
	$(VENV)/bin/python systemd/man/build.py build/man

.PHONY: install uninstall
install: export PYTHON := $(if $(filter file,$(origin PYTHON)),$(firstword $(wildcard /usr/bin/python3) $(PYTHON)),$(PYTHON))
install: packages
	systemd/install.sh install

uninstall:
	systemd/install.sh uninstall

.PHONY: clean
clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
