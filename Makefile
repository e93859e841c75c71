# What a newcomer needs: make demo, make test. make deb packs it; make bench, curves, fleet and soak measure it.
SWIFT ?= swift
PYTHON ?= python3
BUILD := $(SWIFT) build -c release --disable-local-rpath
BINARY := .build/release/penstock
SOURCES := Package.swift Sources Tests
# Seconds for each fuzz target.
FUZZ ?= 10
# Seconds of kills, rotations and faults.
SOAK ?= 3600

# Debian's names. To run the binary: the libraries without -dev. protobuf-c-compiler is only for `make proto`.
APT := libcurl4-openssl-dev libssl-dev zlib1g-dev libisal-dev libpcre2-dev libprotobuf-c-dev libtomlplusplus-dev pkg-config libstdc++-12-dev git ca-certificates
APT_DEB := build-essential debhelper dpkg-dev python3
APT_TESTS := python3-venv openssl logrotate valgrind binutils bsdutils rsyslog rsyslog-openssl socat systemd libglib2.0-0 tmux prometheus chromium $(APT_DEB) lintian man-db debootstrap

.PHONY: deps deps-build build deb demo test test-swift test-threads test-fuzz test-interop test-boot soak bench bench-micro curves fleet format lint proto clean

deps: deps-build .venv/installed .peers/usr/bin/loggen

deps-build:
	@packaging/apt-install $(APT)

# The peers of the tests, from PyPI; in the checkout, ignored by git.
.venv/installed: Tests/Interop/requirements.txt
	@packaging/apt-install $(APT_TESTS)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# syslog-ng's loggen, whose package cannot be installed beside rsyslog.
.peers/usr/bin/loggen:
	@packaging/apt-install $(APT_TESTS)
	Tests/Interop/fetch-loggen .peers

build: deps-build
	$(BUILD) --product penstock

# The Debian package: .build-deb/penstock_VERSION_ARCHITECTURE.deb.
deb: deps-build
	@packaging/apt-install $(APT_DEB)
	packaging/make-deb

# The embedded Kinesis, the agent and a program that writes a log, with live figures; ends by comparing.
demo: build
	$(BINARY) demo

test: deps lint test-swift test-threads test-fuzz test-interop

# Against the release build: what is tested is what ships.
test-swift: deps
	$(BUILD) --build-tests
	$(SWIFT) test -c release --disable-local-rpath --disable-testable-imports --skip-build

# The thread sanitizer finds races in release builds only.
test-threads: deps-build
	PENSTOCK_THREADS=1 $(SWIFT) test -c release --sanitize=thread --scratch-path .build-threads --filter Threads

# libFuzzer with the address sanitizer, a bounded time for each reader of foreign bytes.
test-fuzz: deps-build
	Tests/Fuzz/run $(FUZZ)

# Real peers: boto3, moto, aws_kinesis_agg. Most of it waits, so that two tests go side by side but where one measures.
test-interop: deps
	$(BUILD) --product penstock
	.venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" Tests/Interop
	.venv/bin/python -m pytest -q -m alone Tests/Interop

# The Debian package under the real systemd, in an emulated machine.
test-boot: deps
	@packaging/apt-install qemu-system-x86
	$(BUILD) --product penstock
	PENSTOCK_BOOT=1 .venv/bin/python -m pytest -q Tests/Interop/test_boot.py

# The oracle, for longer than a test may take.
soak: deps
	$(BUILD) --product penstock
	PENSTOCK_SOAK=$(SOAK) .venv/bin/python -m pytest -q Tests/Interop/test_soak.py Tests/Interop/test_soak_sockets.py
	PENSTOCK_SOAK=1 .venv/bin/python -m pytest -q Tests/Interop/test_many_files.py Tests/Interop/test_power_loss.py \
		Tests/Interop/test_disk_faults.py Tests/Interop/test_spool.py Tests/Interop/test_memory.py

bench: deps build
	$(BUILD) --product spool-benchmark
	.venv/bin/python benchmarks/EndToEnd/run.py
	.venv/bin/python benchmarks/Spool/run.py
	$(BUILD) --product gzip-benchmark
	$(PYTHON) benchmarks/Gzip/run.py
	$(BUILD) --product instruction-benchmark
	.venv/bin/python benchmarks/Packing/run.py
	$(PYTHON) benchmarks/Instructions/run.py
	$(MAKE) bench-micro

# The inner loops by the clock; only this fetches ordo-one's Benchmark.
bench-micro: deps-build
	PENSTOCK_BENCHMARKS=1 $(BUILD) --product micro-benchmark
	.build/release/micro-benchmark

# Every point of the curves, of which bench measures a few; writes benchmarks/results/curves.json, which is committed.
curves: deps build
	.venv/bin/python benchmarks/EndToEnd/curves.py

# A thousand agents on one stream, simulated; writes benchmarks/results/fleet.*, which are committed.
fleet: deps
	$(BUILD) --product fleet-benchmark
	.venv/bin/python benchmarks/Fleet/run.py

format:
	$(SWIFT) format -i -r $(SOURCES)

lint:
	$(SWIFT) format lint --strict -r $(SOURCES)

# After a change of aggregate.proto; the result is committed.
proto:
	@packaging/apt-install protobuf-c-compiler
	cd Sources/C/Aggregate && protoc-c --c_out=. aggregate.proto && mv aggregate.pb-c.h include/

clean:
	rm -rf .build .build-threads .build-fuzz .build-deb .venv .peers
