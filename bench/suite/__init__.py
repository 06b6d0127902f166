# SPDX-License-Identifier: Apache-2.0
"""Parts of the benchmark: cases, targets, sessions, measurement and reports. See docs/BENCHMARK.md."""
