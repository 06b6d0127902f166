#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Start-up on KVM: from the exec of the program to the first guest instruction, what of it KVM's own ioctls take, and
the program's private memory beside the guest's RAM (1 vCPU, 128 MiB). Prints medians; exits with 1 over a limit.

usage: kvm_start.py [--cicada PROGRAM] [--runs N] [--each]      --each: every ioctl of one run, with its time
"""
import argparse, os, statistics, struct, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from suite.boots import private_kib

LIMIT_MS, LIMIT_KIB = 5, 5 << 10
LOAD = 0x100000


def kernel(path):
    """A multiboot kernel that prints 'x' and halts."""
    code = b"\xba\xf8\x03\x00\x00\xb0x\xee\xfa\xf4\xeb\xfd"  # mov edx, 0x3f8; mov al, 'x'; out; cli; hlt; jmp
    head = struct.pack("<8I", 0x1BADB002, 0x10000, 0x100000000 - 0x1BADB002 - 0x10000, LOAD, LOAD, 0, 0, LOAD + 32)
    with open(path, "wb") as f:
        f.write(head + code)


def run(program, folder, each=False):
    """(ns from exec to the first KVM_RUN, of it ns in ioctls, their number, private KiB)"""
    read, write = os.pipe()
    errors = os.path.join(folder, "err")
    argv = [program, "run", "--engine", "kvm", "-m", "128M", "--boot", "multiboot", "--kernel",
            os.path.join(folder, "kernel")]
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(write, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        env = dict(os.environ, LD_PRELOAD=os.path.join(folder, "shim.so"), XDG_RUNTIME_DIR=folder)
        if each:
            env["KVM_START_EACH"] = "1"
        os.execve(program, argv, dict(env, KVM_START=str(time.monotonic_ns())))
    os.close(write)
    try:
        if os.read(read, 1) != b"x":
            sys.exit(open(errors).read())
        memory = private_kib(pid)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(read)
    text = open(errors).read()
    if each:
        print(text, end="")
    line = next(l for l in text.splitlines() if l.startswith("kvm_start"))
    return [int(w) for w in line.split()[1:]] + [memory]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--cicada", default="build/cicada")
    ap.add_argument("--runs", type=int, default=21)
    ap.add_argument("--each", action="store_true")
    opt = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="cicada-bench-") as folder:
        kernel(os.path.join(folder, "kernel"))
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", os.path.join(folder, "shim.so"),
                        os.path.join(HERE, "kvm_start.c")], check=True)
        program = os.path.abspath(opt.cicada)
        if not os.access(program, os.X_OK):
            sys.exit("%s: no such program (--cicada PROGRAM)" % program)
        if opt.each:
            run(program, folder, True)
            return 0
        runs = [run(program, folder) for _ in range(opt.runs)]
    total, ioctls, count, memory = (statistics.median(column) for column in zip(*runs))
    own = statistics.median(r[0] - r[1] for r in runs) / 1e6
    print(f"start to first guest instruction {total / 1e6:.2f} ms, of it {count:.0f} ioctls of KVM {ioctls / 1e6:.2f} ms, "
          f"the program {own:.2f} ms (limit {LIMIT_MS}); best {min(r[0] - r[1] for r in runs) / 1e6:.2f} ms")
    print(f"private memory beside the guest's RAM {memory / 1024:.1f} MiB (limit {LIMIT_KIB / 1024:.0f})")
    return 0 if own <= LIMIT_MS and memory <= LIMIT_KIB else 1


if __name__ == "__main__":
    sys.exit(main())
