# make demo    a chat in the browser, from nothing: installs php-fpm if it is missing, builds, prints the URL
# make cluster three nodes, Redis (ENGINE=nats: NATS) and HAProxy on this machine with the chat on them, to kill something and see
# make test    what CI runs: installs what the tests need, lint, every test
# make lint    formatting, clippy and documentation, warnings are errors
# make bench   Longwire beside nginx, nchan and the least that the same reads and writes cost: docs/performance.md, two hours
# make bench-micro   time of each codec and of the router by themselves, four minutes after the build; FILTER="websocket" runs some

CARGO ?= cargo
DEMO ?= php-examples/chat
# Tests wait for processes and leases more than they compute: with one for each core two cores are half idle.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) + 2)))

.PHONY: demo cluster test lint bench bench-micro

demo:
	tests/install-deps.sh demo
	$(CARGO) run --release --locked -- dev $(DEMO)

cluster:
	tests/install-deps.sh cluster
	$(CARGO) build --release --locked
	tests/cluster.sh "$${CARGO_TARGET_DIR:-target}/release/longwire"

test:
	tests/install-deps.sh test
	tests/venv.sh autobahn chat responders schemathesis
	tests/npm.sh responders
	$(MAKE) lint
	$(CARGO) test --locked -- --skip autobahn
	$(CARGO) test --locked --test it -- autobahn
	$(CARGO) test --locked --bench system -- --quick

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

bench:
	tests/install-deps.sh bench
	$(CARGO) bench --locked --bench system

bench-micro:
	$(CARGO) bench --locked --bench micro -- $(FILTER)
