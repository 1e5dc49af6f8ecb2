# A front door. Everything is built by meson in build/; each target here is a line or two that one could type.

PREFIX = /usr/local
DESTDIR =
BUILD = build
TESTS =
ROWS =
MUTANTS =

# Of `make platform-smoke`: where to publish, and where checkpoints are; nothing: files in a scratch directory.
BUS ?=
STORE ?=
export BUS STORE

# States that `make torture-night` makes for each of the 25 tests of power cuts: a million in all.
STATES = 40000

# Tests at once: they wait for the disk, for servers, and for each other, twice as long as they work.
ABREAST = $$((3 * $$(nproc)))

# What the build directory was told, so that it is told again only where that changed.
TOLD = $(BUILD)/meson-private/cmd_line.txt

.PHONY: all with-tests platform-smoke test test-servers torture torture-night branches install bench bench-peers lint fuzz mutants help clean

all: $(BUILD)/build.ninja           ## build the program and the library (the default)
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@tests/deps build
	meson setup $(BUILD) -Dtests=false -Dprefix=$(PREFIX)

# Configured, and the tests with it.
with-tests: $(BUILD)/build.ninja
	@tests/deps build test
	@grep -qx 'tests = true' $(TOLD) || meson configure $(BUILD) -Dtests=true

platform-smoke: all                 ## install what is missing, build, and run the main job on real events, or on BUS=nats://HOST STORE=URL
	@tests/smoke $(BUILD)/cmd/evbus

test: with-tests                    ## run the tests, or only those named by TESTS="version publish"
	@ninja -C $(BUILD)
	@EVBUS_TEST_QUICK=1 tests/told $(BUILD) \
		meson test -C $(BUILD) --no-rebuild --print-errorlogs --num-processes $(ABREAST) $(TESTS)

# NATS from Debian's packages and Kafka from Maven's, which nothing else here needs.
test-servers: with-tests            ## start the servers of the backends, and run the tests that need them
	@tests/deps servers || echo 'some of the servers cannot be had: their tests say so'
	@ninja -C $(BUILD)
	@tests/told $(BUILD) \
		meson test -C $(BUILD) --no-rebuild --print-errorlogs --num-processes $$(($$(nproc) + 1)) --suite servers $(TESTS)

torture: with-tests                 ## run the fault harness with its full counts, or TESTS="fault-power" of it
	@ninja -C $(BUILD)
	@tests/told $(BUILD) \
		meson test -C $(BUILD) --no-rebuild --print-errorlogs --num-processes $(ABREAST) --suite fault $(TESTS)
	@sed -n '/: ran [0-9]* of [0-9]*$$/p' $(BUILD)/meson-logs/testlog.txt

# Hours: by another seed each time, which a failure prints.
torture-night: with-tests           ## make a million states that a power cut may leave, and kill at each call
	@ninja -C $(BUILD)
	@EVBUS_TEST_STATES=$(STATES) tests/told $(BUILD) \
		meson test -C $(BUILD) --no-rebuild --print-errorlogs --suite night -t 0
	@sed -n '/: ran [0-9]* of [0-9]*$$/p' $(BUILD)/meson-logs/testlog.txt

branches:                           ## list the failures in lib/log, lib/store, lib/delivery that no test brings about
	@tests/deps build test
	@tests/fault/branches

install: all                        ## install under PREFIX (/usr/local), staged below DESTDIR
	@grep -qx 'prefix = $(PREFIX)' $(TOLD) || { meson configure $(BUILD) -Dprefix=$(PREFIX) && ninja -C $(BUILD); }
	DESTDIR='$(DESTDIR)' meson install -C $(BUILD) --no-rebuild
	@[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ldconfig

bench: with-tests                   ## measure each figure beside its floor and its target, or only ROWS="P1,P5"
	@ninja -C $(BUILD)
	@tests/bench/bench $(BUILD) --rows '$(ROWS)' --json $(BUILD)/bench.json --svg $(BUILD)/bench.svg

bench-peers: with-tests             ## the same beside Redis, NATS, RabbitMQ, SQLite and a file bus in Python
	@ninja -C $(BUILD)
	@tests/deps bench || echo 'some of the other systems cannot be had: their rows say so'
	@tests/bench/bench $(BUILD) --peers --rows '$(ROWS)' --json $(BUILD)/bench-peers.json --svg $(BUILD)/bench-peers.svg

lint: with-tests                    ## clang-tidy, cppcheck, shellcheck, mandoc: any finding is an error
	@tests/deps build lint
	@tests/lint $(BUILD)

# Built by clang, beside the rest. A finding is an error; what is found is kept in build-fuzz/fuzz/finds.
FUZZ_FLAGS = -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined
fuzz:                               ## run each fuzzer for FUZZ_SECONDS=300, or only those named by TESTS="line json"
	@tests/deps build fuzz
	@[ -f build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dtests=true -Dfuzz=true -Db_lundef=false \
		-Db_sanitize=address,undefined '-Dc_args=$(FUZZ_FLAGS)'
	@ninja -C build-fuzz fuzzers
	@tests/fuzz/run build-fuzz $(TESTS)

mutants: with-tests                 ## break the code in each way that tests/mutants lists, or by MUTANTS="names": a test must notice
	@tests/mutants/run $(BUILD) $(MUTANTS)

help:                               ## print this
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-22s %s\n", $$1, $$2 }'

clean:                              ## remove the build directories
	rm -rf build build-*
