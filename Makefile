# make demo    a chat in the browser, from nothing: installs php-fpm if it is missing, builds, prints the URL
# make cluster three nodes, Redis (ENGINE=nats: NATS) and HAProxy on this machine with the chat on them, to kill something and see
# make test    what CI runs: installs what the tests need, lint, every test
# make packages   what people install, in target/packages: .deb, .rpm, download, checksums (docs/install.md)
# make try-packages   installs these in two releases of Debian and in an empty folder, and looks at what happens
# make lint    formatting, clippy and documentation, warnings are errors
# make bench   Longwire beside nginx, nchan and the least that the same reads and writes cost: docs/performance.md, two hours
# make bench-micro   time of each codec and of the router by themselves, four minutes after the build; FILTER="websocket" runs some

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
DEMO ?= php-examples/chat
# Tests wait for processes and leases as well as they compute: with one for each core two cores are half idle.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) + 2)))
# Notes how long a step takes.
TIMED := tests/timed.sh

.PHONY: demo cluster test test-needs packages try-packages quick-packages lint autobahn quick-benches bench bench-micro

demo:
	tests/install-deps.sh demo
	$(CARGO) run --profile demo --no-default-features --locked -- dev $(DEMO)

cluster:
	tests/install-deps.sh cluster
	$(CARGO) build --profile demo --no-default-features --locked
	tests/cluster.sh "$${CARGO_TARGET_DIR:-target}/demo/longwire"

test: export LONGWIRE_TIMES = yes
test:
	@$(TIMED) >/dev/null
	tests/install-deps.sh build
	$(TIMED) "packages, and lint beside them" $(MAKE) --jobs=2 --no-print-directory test-needs lint
	$(TIMED) "build of the tests" $(CARGO) test --locked --no-run --lib --bins --test it --bench system
	$(TIMED) "tests" $(CARGO) test --locked -- --skip autobahn
	$(TIMED) "Autobahn, and benches and the .deb beside it" $(MAKE) --jobs=2 --no-print-directory autobahn quick-benches quick-packages
	@$(TIMED)

# None of them measures time, so they may share the cores.
autobahn:
	$(TIMED) "Autobahn" $(CARGO) test --locked --test it -- autobahn

quick-benches:
	$(TIMED) "benches, a quick look" $(CARGO) test --locked --bench system -- --quick

# The .deb and the download with the program of the tests in them. That one is not static, so it needs the glibc of bookworm or later.
quick-packages:
	$(TIMED) "a .deb and a download" packaging/build.sh --binary "$(TARGET)/debug/longwire" --only deb,download --level 0 --out "$(TARGET)/quick-packages"
	$(TIMED) "the download" tests/packages/download.sh "$(TARGET)/quick-packages"
	$(TIMED) "the .deb in a fresh Debian" tests/packages/debian.sh "$(TARGET)"/quick-packages/*.deb bookworm

packages:
	tests/install-deps.sh packages
	packaging/build.sh

try-packages: packages
	tests/install-deps.sh test
	tests/packages/download.sh "$(TARGET)/packages"
	tests/packages/static.sh "$(TARGET)/x86_64-unknown-linux-gnu/release/longwire" bullseye
	tests/packages/debian.sh "$(TARGET)"/packages/*.deb bookworm
	tests/packages/debian.sh "$(TARGET)"/packages/*.deb trixie

# What the tests need.
test-needs:
	$(TIMED) "packages of Debian" tests/install-deps.sh test
	$(TIMED) "packages of PyPI" tests/venv.sh autobahn charts chat packages responders schemathesis
	$(TIMED) "packages of npm" tests/npm.sh responders

lint:
	$(TIMED) "fmt" $(CARGO) fmt --check
	$(TIMED) "clippy" $(CARGO) clippy --locked --all-targets -- -D warnings
	$(TIMED) "clippy without features" $(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(TIMED) "rustdoc" $(CARGO) doc --locked --no-deps --document-private-items

bench:
	tests/install-deps.sh bench
	$(CARGO) bench --locked --bench system

bench-micro:
	$(CARGO) bench --locked --bench micro -- $(FILTER)
