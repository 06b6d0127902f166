# SPDX-License-Identifier: Apache-2.0
# A plain front for Meson. Everything that a target needs and the machine lacks is installed first (tools/setup.sh).
#
#   make            build/cicada
#   make demo       boots Debian; INIT=systemd for the full system, QUICK=1 for BusyBox only
#   make check      all tests; the last line counts them (TESTS="fault boot/one-cpu" for some)
#   make bench      speed beside the host and QEMU (CASES=calls,fib RUNS=5; docs/BENCHMARK.md)
#   make install    PREFIX=/usr/local DESTDIR=
#   make asan ubsan tsan   builds in build-asan and so on;  make fuzz  short fuzz runs (FUZZ_SECONDS=30 each)
#   make soak       boots guests again and again (SOAK_MINUTES=10)
#   make format lint clean distclean

BUILD ?= build
PREFIX ?= /usr/local
BUILDTYPE ?= debugoptimized
JOBS ?=
FUZZ_SECONDS ?= 30
SOAK_MINUTES ?= 10
export BUILD

NINJA = ninja -C $(BUILD) $(if $(JOBS),-j$(JOBS))

.PHONY: all setup demo check bench install uninstall asan ubsan tsan fuzz soak format lint clean distclean images

all: $(BUILD)/build.ninja
	@$(NINJA) --quiet cicada
	@echo "built $(BUILD)/cicada"

setup:
	@tools/setup.sh build

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) --prefix=$(PREFIX) --buildtype=$(BUILDTYPE) >$(BUILD).log || { cat $(BUILD).log; rm -f $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log

demo:
	@INIT='$(INIT)' QUICK='$(QUICK)' tools/demo.sh

check:
	@tools/setup.sh build guest test
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@$(NINJA) --quiet
	@tests/run.sh $(TESTS)

bench: all
	@tools/setup.sh guest bench
	@BUILD=$(BUILD) bench/run.py --json $(BUILD)/bench.json $(if $(CASES),--cases "$(CASES)",--plot docs/bench.svg) $(if $(RUNS),--runs $(RUNS))

images:
	@tools/setup.sh guest
	@tools/guest/vmlinux.sh
	@tools/guest/initramfs.sh plain
	@tools/guest/initramfs.sh boot
	@tools/guest/rootfs.sh small
	@tools/guest/rootfs.sh systemd

install: all
	@meson install -C $(BUILD) --no-rebuild --quiet $(if $(DESTDIR),--destdir $(DESTDIR))

uninstall:
	@ninja -C $(BUILD) uninstall

asan ubsan tsan:
	@tools/sanitize.sh $@

fuzz:
	@tools/setup.sh build fuzz
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz.sh

soak: all
	@tools/setup.sh guest
	@SOAK_MINUTES=$(SOAK_MINUTES) tools/soak.sh

format:
	@tools/setup.sh lint
	@find src include tests fuzz bench -name '*.[ch]' | xargs clang-format -i

lint: $(BUILD)/build.ninja
	@tools/setup.sh lint
	@tools/check-layers.sh
	@tools/check-headers.sh
	@tools/check-size.sh
	@tools/check-format.sh
	@tools/check-shell.sh
	@tools/lint.sh

clean:
	rm -rf $(BUILD) build-asan build-ubsan build-tsan build-fuzz

distclean: clean
	rm -rf .cache
