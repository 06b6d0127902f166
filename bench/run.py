#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Benchmark of Cicada's translator beside the host and beside QEMU's. See docs/BENCHMARK.md.

    bench/run.py --quick --cases int,calls --only native,xlate
    bench/run.py --cases fib --perf build/fib.perf        one case under perf record
    bench/run.py --list
"""
import sys

if __name__ == "__main__":
    from suite import main
    sys.exit(main.main())
