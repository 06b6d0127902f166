#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the boot cases in turn (A B C D, A B C D, ...) so that a change of the machine's speed touches all alike,
and reports for each the medians of user + system CPU time and of elapsed time, as text and as JSON.

What is measured is the process of the VMM from fork to exit, as the kernel accounts it (wait4). A run counts only
where the guest's console shows that userspace was reached and the program exits with 0.
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

MARK = b"CICADA: userspace reached"
CMDLINE = "console=ttyS0 cicada.mode=poweroff"
QEMU = "qemu-system-x86_64"
LIMIT = 120


def cases(args):
    """The commands, by name. Same kernel, same initramfs, same command line, one vCPU, 512 MiB, no other device."""
    bzimage, elf = args.cache + "/kernel/vmlinuz", args.cache + "/vmlinux"
    initrd = args.cache + "/initramfs-plain.cpio"
    cicada = [args.cicada, "run", "--engine", "xlate", "--cpus", "1", "--memory", "512M", "--serial", "stdio",
              "--no-reboot", "--initrd", initrd, "--cmdline", CMDLINE]
    qemu = [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "512", "-nodefaults", "-no-user-config",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-initrd", initrd, "-append", CMDLINE]
    return {
        "cicada-bzimage": ("cicada, bzImage", cicada + ["--kernel", bzimage]),
        "qemu-bzimage": ("QEMU -M pc, bzImage", qemu + ["-M", "pc", "-kernel", bzimage]),
        "cicada-elf": ("cicada, ELF", cicada + ["--kernel", elf]),
        "qemu-elf": ("QEMU -M microvm, ELF", qemu + ["-M", "microvm", "-kernel", elf]),
    }


def run(command):
    """One run: (CPU seconds, elapsed seconds, what is wrong or None)."""
    begin = time.monotonic()
    with open(os.devnull, "rb") as null:
        child = subprocess.Popen(["timeout", "-k", "5", str(LIMIT)] + command, stdin=null, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    elapsed = time.monotonic() - begin
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    # timeout(1) is the child; its own share is a millisecond, and its usage includes that of the VMM it waited for.
    cpu = usage.ru_utime + usage.ru_stime
    if MARK not in output:
        return cpu, elapsed, "no userspace (exit code %d): %s" % (code, output[-300:].decode("latin-1"))
    return cpu, elapsed, None if code == 0 else "exit code %d" % code


def summary(name, title, results):
    good = [r for r in results if r[2] is None]
    entry = {"name": name, "title": title, "runs": len(results), "good": len(good)}
    if good:
        cpu, wall = [r[0] for r in good], [r[1] for r in good]
        entry.update(cpu_s=round(statistics.median(cpu), 3), cpu_min_s=round(min(cpu), 3),
                     cpu_max_s=round(max(cpu), 3), wall_s=round(statistics.median(wall), 3))
    else:
        entry["error"] = results[-1][2] if results else "not run"
    return entry


def table(entries):
    print("%-24s %10s %19s %10s %6s" % ("boot to userspace", "CPU s", "min .. max", "elapsed s", "runs"))
    for e in entries:
        if "cpu_s" in e:
            print("%-24s %10.2f %8.2f .. %7.2f %10.2f %6d" % (e["title"], e["cpu_s"], e["cpu_min_s"], e["cpu_max_s"],
                                                           e["wall_s"], e["good"]))
        else:
            print("%-24s failed: %s" % (e["title"], " ".join(e["error"].split())[-120:]))


def ratios(entries):
    by = {e["name"]: e for e in entries}
    out = {}
    for kind in ("bzimage", "elf"):
        a, b = by.get("cicada-" + kind, {}), by.get("qemu-" + kind, {})
        if "cpu_s" in a and "cpu_s" in b:
            out[kind] = round(a["cpu_s"] / b["cpu_s"], 3)
            print("%s: Cicada takes %.2f of QEMU's CPU time" % (kind, out[kind]))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cicada", required=True)
    parser.add_argument("--cache", default=".cache")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--cases", default="")
    args = parser.parse_args()
    if args.runs < 3:
        sys.exit("bench: --runs: at least 3, for a median")
    todo = cases(args)
    if args.cases:
        unknown = [c for c in args.cases.split() if c not in todo]
        if unknown:
            sys.exit("bench: no case '%s'; there are %s" % (unknown[0], ", ".join(todo)))
        todo = {name: todo[name] for name in todo if name in args.cases.split()}
    if not shutil.which(QEMU):
        print("bench: %s is not installed: only Cicada is measured" % QEMU, file=sys.stderr)
        todo = {name: case for name, case in todo.items() if not name.startswith("qemu")}
    results = {name: [] for name in todo}
    for turn in range(args.runs):
        for name, (title, command) in todo.items():
            results[name].append(run(command))
            print("run %d of %d: %s: %.2f s CPU%s" % (turn + 1, args.runs, title, results[name][-1][0],
                                                   "" if results[name][-1][2] is None else " FAILED"), file=sys.stderr)
    entries = [summary(name, todo[name][0], results[name]) for name in todo]
    table(entries)
    ratio = ratios(entries)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump({"host": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
                       "cmdline": CMDLINE, "cases": entries, "ratio": ratio}, out, indent=2)
            out.write("\n")
    sys.exit(0 if all("cpu_s" in e for e in entries) else 1)


if __name__ == "__main__":
    main()
