# Everything that a fresh machine needs: `make demo`, `make test`. See README.md.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV    ?= .venv
PY       = $(VENV)/bin/python
ABS_PY   = $(abspath $(PY))
PIP      = $(PY) -m pip --disable-pip-version-check
NATIVE   = native/target/release
SOURCES := $(shell find native/core native/engine native/transport -name '*.rs' -o -name '*.c' -o -name '*.h') \
	native/Cargo.toml native/Cargo.lock native/core/Cargo.toml native/engine/Cargo.toml native/transport/Cargo.toml
EXT      = $(shell $(PY) -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")

.PHONY: help setup setup-test demo test test-python test-native test-instructions test-pythons test-fallbacks check format bench bench-hotpath bench-hotpath-clock bench-peers native native-core native-engine native-transport lock clean

help:
	@echo 'make demo    set up, start the server, run an instrumented program, ask SQL'
	@echo 'make test    every test (PostgreSQL and an S3 emulator included)'
	@echo 'make check   formatters, linters, types'
	@echo 'make bench   every benchmark, beside its floor or peer'

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed, and none was found on PATH'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt pip setuptools setuptools-rust wheel
	touch $@

# The native modules are built by cargo in native/target, which is kept between runs, and copied beside the package.
$(VENV)/.native: $(VENV)/.created $(SOURCES)
	@command -v cargo >/dev/null || { echo 'a Rust toolchain (cargo) is needed to build the native parts'; exit 1; }
	$(MAKE) native
	touch $@

INSTALL = MICROMEGAS_NATIVE=prebuilt $(PIP) install -q --no-build-isolation -c constraints.txt

# Both distributions from the one source tree; "compat" puts its folder on the path where setuptools would hook imports.
$(VENV)/.server: $(VENV)/.created pyproject.toml setup.py server/pyproject.toml server/setup.py constraints.txt
	$(INSTALL) -e '.[client]'
	$(INSTALL) -C editable_mode=compat -e ./server
	touch $@

$(VENV)/.test: $(VENV)/.server
	$(INSTALL) -e '.[client,test,dev]'
	touch $@

setup:
	$(MAKE) -j2 $(VENV)/.created
	$(MAKE) -j2 $(VENV)/.native $(VENV)/.server

setup-test: setup
	$(MAKE) $(VENV)/.test

native-core:
	cd native && PYO3_PYTHON=$(ABS_PY) cargo build --locked --release -p micromegas-core
	cp $(NATIVE)/libmicromegas_core.so src/micromegas/_core$(EXT).new && mv src/micromegas/_core$(EXT).new src/micromegas/_core$(EXT)

native-engine:
	cd native && PYO3_PYTHON=$(ABS_PY) cargo build --locked --release -p micromegas-engine
	cp $(NATIVE)/libmicromegas_engine.so src/micromegas/_engine$(EXT).new && mv src/micromegas/_engine$(EXT).new src/micromegas/_engine$(EXT)

native-transport:
	cd native && PYO3_PYTHON=$(ABS_PY) cargo build --locked --release -p micromegas-transport
	cp $(NATIVE)/libmicromegas_transport.so src/micromegas/_transport$(EXT).new && mv src/micromegas/_transport$(EXT).new src/micromegas/_transport$(EXT)

native: native-core native-engine native-transport

demo: setup
	$(PY) examples/demo.py

test: setup-test test-native test-python test-instructions

# The own tests of engine and transport link libpython; everything else of them is tested through Python.
test-native: setup-test
	cd native && cargo test --locked --no-default-features -p micromegas-core
	@libdir=$$($(PY) -c "import sysconfig as s; print(s.get_config_var('LIBDIR') if s.get_config_var('Py_ENABLE_SHARED') else '')"); \
	if test -z "$$libdir"; then echo "this Python has no shared library: the unit tests of native/engine and native/transport are left out"; exit 0; fi; \
	cd native && LD_LIBRARY_PATH=$$libdir PYO3_PYTHON=$(ABS_PY) cargo test --locked --no-default-features -p micromegas-engine -p micromegas-transport

# Files of tests side by side, one process per core. A process that hung or crashed isn't replaced: its successor would
# begin with the test that ended it.
PYTEST   = -m pytest -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

test-python: setup-test
	$(PY) $(PYTEST)

# Fails when an event has become a tenth dearer, in machine instructions; tells so when there is no valgrind.
test-instructions: setup-test
	$(PY) bench/instructions.py

check: setup-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(ABS_PY)
	cd native && cargo fmt --check
	cd native && PYO3_PYTHON=$(ABS_PY) cargo clippy --locked --release --all-targets -- -D warnings

format: setup-test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	cd native && cargo fmt

lock: setup-test
	{ echo '# Exact versions of everything that make setup installs; refresh with: make lock'; \
	  $(PIP) freeze --all --exclude-editable | grep -vi '^micromegas'; } > constraints.new && mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) native/target src/micromegas/_core*.so src/micromegas/_engine*.so src/micromegas/_transport*.so

# The recorder on the other interpreters of this machine: its C part is compiled against each one's own headers.
OTHERS ?= 3.12 3.13

test-pythons: $(addprefix test-python-,$(OTHERS)) test-fallbacks

# Its environment in .venvs, and the core built for it; nothing when there is no such Python.
other-python-%: setup-test
	@python=$$(sh tools/find_python $*) || { echo "no Python $* here: it is left out"; exit 0; }; \
	set -e; test -d .venvs/$* || "$$python" -m venv .venvs/$*; \
	.venvs/$*/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt pytest pytest-xdist hypothesis cbor2 lz4 opentelemetry-api; \
	cd native && PYO3_PYTHON=$(abspath .venvs)/$*/bin/python CARGO_TARGET_DIR=target/python-$* cargo build --locked --release -p micromegas-core; cd ..; \
	ext=$$(.venvs/$*/bin/python -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"); \
	cp native/target/python-$*/release/libmicromegas_core.so src/micromegas/_core$$ext.new; \
	mv src/micromegas/_core$$ext.new src/micromegas/_core$$ext

test-python-%: other-python-%
	@test ! -x .venvs/$*/bin/python || \
	{ PYTHONPATH=$(abspath src) .venvs/$*/bin/python $(PYTEST) --confcutdir tests/record tests/record && \
	PYTHONPATH=$(abspath src) .venvs/$*/bin/python bench/instructions.py; }

# What other machines and later interpreters get: the clock of the system, the public frame API.
FALLBACKS = $(abspath .venvs/fallbacks)
test-fallbacks: setup-test
	cd native && MICROMEGAS_PUBLIC_FRAME_API=1 MICROMEGAS_MONOTONIC_CLOCK=1 PYO3_PYTHON=$(ABS_PY) CARGO_TARGET_DIR=target/fallbacks \
	cargo build --locked --release -p micromegas-core
	mkdir -p $(FALLBACKS) && cp -r src/micromegas $(FALLBACKS)/
	cp native/target/fallbacks/release/libmicromegas_core.so $(FALLBACKS)/micromegas/_core$(EXT)
	PYTHONPATH=$(FALLBACKS) $(PY) $(PYTEST) --confcutdir tests/record \
	$(addprefix tests/record/test_,logs.py log_levels.py metrics.py spans.py async_matrix.py trace_functions.py limits.py)

# The limits of the hot path, on every interpreter of this machine.
bench-hotpath: setup-test $(addprefix bench-hotpath-,$(OTHERS))
	$(PY) bench/hotpath.py

bench-hotpath-%: other-python-%
	test ! -x .venvs/$*/bin/python || PYTHONPATH=$(abspath src) .venvs/$*/bin/python bench/hotpath.py

# The same where a time stamp takes as long as where the limits were set, for it is the system's clock.
bench-hotpath-clock: setup-test
	MICROMEGAS_RECORDER_CLOCK=monotonic $(MAKE) bench-hotpath

# Beside other libraries, in an environment of their own.
bench-peers: setup-test
	test -d .venvs/peers || $(PY) -m venv .venvs/peers
	.venvs/peers/bin/python -m pip install -q --disable-pip-version-check -r bench/peers.txt
	PYTHONPATH=$(abspath src) .venvs/peers/bin/python bench/hotpath.py --peers

bench: setup-test
	# figures mean something only on a machine that does nothing else
	$(PY) bench/hotpath.py
	$(PY) bench/start.py
	$(PY) bench/handover.py
	$(PY) bench/tasks.py
	$(PY) bench/throughput.py --kind metrics
	$(PY) bench/throughput.py --kind spans
	$(PY) bench/throughput.py --kind logs
	$(PY) bench/behind.py
	$(PY) bench/decode.py
	$(PY) bench/ingest.py
	$(PY) bench/materialize.py ../shared/vectors/service
	$(PY) bench/row_sizes.py
	$(PY) bench/query.py ../shared/vectors/service
	$(PY) bench/scale.py
	$(PY) bench/log_stats.py
	$(PY) bench/otlp.py
	$(PY) bench/histograms.py
	$(PY) bench/perfetto.py
	$(PY) bench/first_look.py
	$(PY) bench/live_process.py
	$(PY) bench/postgres_gateway.py
	$(PY) bench/clients.py
	$(PY) bench/flight.py
	$(PY) bench/service.py
	$(PY) bench/freshness.py
