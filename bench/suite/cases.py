# SPDX-License-Identifier: Apache-2.0
"""The cases: what is run, how much of it, and in which kind of guest.

`work` is the argument that sets how long a case takes: about 0.4 s on the host, less where TCG would take more than
20 s. `--quick` divides it by `divide`. In a command, {work} stands for that number, and {disk}, {net}, {port} for what
differs between the host and a guest.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Case:
    group: str
    name: str
    work: int
    command: str = ""        # default: the benchmark's own program with the case's name
    divide: int = 5
    image: str = "base"      # initramfs: base or full
    cpus: int = 1
    disk: bool = False
    net: bool = False
    basis: str = "cpu"       # what the ratios compare: cpu time of the process, or wall time in the guest
    prepare: tuple = ()      # commands before the clocks start
    only: tuple = ("native", "xlate", "tcg")
    boot: bool = False       # a whole boot, see boots.py
    tcg_differs: bool = False  # TCG computes another result: not the CPU's microcode

    def words(self, quick, target):
        """The command line for the agent."""
        work = max(1, self.work // self.divide) if quick else self.work
        text = self.command or "./bench %s {work}" % self.name
        return text.format(work=work, **target.places).split()


def own(group, table, **options):
    return [Case(group, name, work, **options) for name, work in table]


GROUPS = {
    "int": "integer loops",
    "interp": "interpreters",
    "calls": "calls",
    "fp": "FP and SIMD",
    "x87": "x87",
    "mem": "memory",
    "atomic": "atomics, 2 vCPUs",
    "os": "system calls, pipes, switches, files",
    "proc": "fork, exec, faults, signals",
    "smc": "self-modifying code, JIT",
    "prog": "whole programs",
    "disk": "disk",
    "net": "network",
    "boot": "kernel boot to userspace",
    "systemd": "systemd boot to login",
}

CASES = (
    own("int", [("state-machine", 1200), ("list", 280), ("matrix", 1100), ("crc", 1500), ("division", 24000000),
                ("qsort", 80), ("sieve", 330), ("hash", 40000000), ("sha256", 400000)])
    + own("interp", [("bytecode-switch", 30000), ("bytecode-threaded", 40000)])
    + [
        Case("interp", "python3", 250, "{python} -I -S -B data/work.py {work}", image="full"),
        Case("interp", "lua", 500, "/usr/bin/lua5.4 data/work.lua {work}", image="full"),
    ]
    + own("calls", [("fib", 40), ("ackermann", 8000)], divide=1)
    + own("calls", [("deep-return", 24000), ("virtual", 1200000), ("small-calls", 30000000), ("longjmp", 15000000),
                    ("coroutines", 8000000)])
    + own("fp", [("nbody", 1500000), ("mandelbrot", 2500), ("fourier", 8000), ("libm", 3000000), ("convert", 20000000),
                 ("matrix-sse2", 400), ("matrix-avx2", 120), ("triad-sse2", 300000), ("triad-avx2", 300000),
                 ("triad-memory", 60), ("bytes-sse2", 40000), ("ints-avx2", 30000)])
    + own("x87", [("x87-polynomial", 15000000), ("x87-linear", 9000)])
    + own("x87", [("x87-transcendental", 1400000)], tcg_differs=True)
    + own("mem", [("chase-l1", 90000000), ("chase-l2", 30000000), ("chase-l3", 1500000), ("chase-dram", 1500000),
                  ("chase-pages", 1500000), ("random-update", 12000000), ("sequential", 200), ("memcpy-200", 8000000),
                  ("memcpy-4k", 1500000), ("memcpy-8m", 120), ("rep-movs-96", 4000000), ("rep-movs-4k", 500000),
                  ("rep-movs-1m", 2000), ("rep-stos", 30000), ("strlen", 10000000), ("strings", 400000)])
    + own("atomic", [("atomic-add", 8000000), ("atomic-own", 4000000), ("atomic-cas", 5000000), ("spinlock", 2000000),
                     ("ring", 4000000), ("mutex", 2000000)], cpus=2)
    + own("os", [("null-call", 2000000), ("clock", 6000000), ("pipe", 400000), ("ping-pong", 60000), ("switch", 80000),
                 ("file-create", 30000), ("file-read", 600000)])
    + own("proc", [("fork", 3000), ("fork-exec", 600), ("thread", 15000), ("page-fault", 300), ("copy-on-write", 300),
                   ("map-unmap", 30000), ("signal", 180000), ("fault-signal", 50000)])
    + own("smc", [("smc-patch", 200000), ("smc-data-beside", 8000000), ("smc-fresh", 200000), ("jit-hot", 1000),
                  ("jit-cold", 60000), ("jit-protect", 3000)])
    + [
        Case("prog", "gcc", 1, "{cc1} -quiet -O2 -ffreestanding data/source.c -o -", image="full"),
        Case("prog", "gzip", 1, "/usr/bin/gzip -c data/text", image="full"),
        Case("prog", "gunzip", 1, "/usr/bin/gzip -dc work.gz", image="full",
             prepare=("/usr/bin/gzip -k -f -1 data/text", "/bin/busybox mv data/text.gz work.gz")),
        Case("prog", "sqlite3", 1, "/usr/bin/sqlite3 -init data/queries.sql :memory: .quit", image="full"),
        Case("prog", "zstd", 7, "/usr/bin/zstd -{work} --single-thread -q -c data/text", image="full", divide=2),
    ]
    + [Case("prog", name, work, "./bench-crypto %s {work}" % name)
       for name, work in (("openssl-sha256", 4000), ("openssl-aes-cbc", 4000), ("openssl-aes-gcm", 15000),
                          ("openssl-rsa", 600))]
    + [Case("disk", name, work, "./bench %s {work} {disk}" % name, disk=True, basis="wall", divide=4)
       for name, work in (("disk-seq-read", 2000), ("disk-seq-write", 1000), ("disk-read-1", 8000),
                          ("disk-read-32", 20000), ("disk-write-1", 8000), ("disk-write-32", 20000),
                          ("disk-verify", 1))]
    + [Case("net", name, work, "./bench %s {work} {net} {port}" % name, net=True, basis="wall", divide=4)
       for name, work in (("net-send", 3000), ("net-receive", 3000), ("net-ask", 6000), ("net-connect", 400))]
    + [Case("boot", name, 1, only=("xlate", "tcg"), boot=True) for name in ("boot-bzimage", "boot-elf")]
    + [Case("systemd", "boot-systemd", 1, only=("xlate", "tcg"), boot=True)]
)
