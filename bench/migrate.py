#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Downtime of live migrations on this host: an idle-ish guest of 512 MiB that prints a number every few milliseconds is
moved back and forth. Printed are what the source measured (guest stopped to "running" from the target) and what a
listener at the serial ports saw: the longest silence between two numbers, less the usual one.

usage: bench/migrate.py [--cicada PROGRAM] [--memory SIZE] [--count N] [--to unix|tcp]
"""
import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("CICADA_CACHE", os.path.join(ROOT, ".cache"))
SCRIPT = "i=0\nwhile :; do echo \"t $i\"; i=$((i + 1)); usleep 1000; done\n"


class Console(threading.Thread):
    """Reads a serial socket; notes when each number came."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.seen, self.text = path, {}, b""

    def run(self):
        while True:
            try:
                s = socket.socket(socket.AF_UNIX)
                s.connect(self.path)
                break
            except OSError:
                s.close()
                time.sleep(0.002)
        while data := s.recv(65536):
            now = time.monotonic()
            *lines, self.text = (self.text + data).split(b"\n")
            for line in lines:
                if m := re.fullmatch(rb"t (\d+)\r?", line):
                    self.seen.setdefault(int(m[1]), now)


def make_initrd(folder):
    add = os.path.join(folder, "add")
    os.makedirs(os.path.join(add, "cicada"))
    with open(os.path.join(add, "cicada", "script"), "w") as f:
        f.write(SCRIPT)
    cpio = subprocess.run(["sh", "-c", "find . -mindepth 1 | cpio --quiet -o -H newc -R 0:0"], cwd=add, check=True,
                          stdout=subprocess.PIPE).stdout
    path = os.path.join(folder, "initrd")
    with open(os.path.join(CACHE, "initramfs-plain.cpio"), "rb") as base, open(path, "wb") as out:
        out.write(base.read() + cpio)
    return path


def receive(args, folder, name):
    at = "tcp:127.0.0.1:0" if args.to == "tcp" else f"unix:{folder}/{name}.at"
    console = Console(f"{folder}/{name}.serial")
    p = subprocess.Popen([args.cicada, "receive", at, "--name", name, "--engine", "xlate", "--serial",
                          f"unix:{console.path}"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    at = re.match(r"cicada: waiting at (.*)", p.stderr.readline())[1]
    console.start()
    return p, at, console


def silence(before, after):
    """Longest time without a number around the move, less the usual distance, in ms."""
    last = max(before.seen)
    times = [before.seen[n] for n in sorted(before.seen)[-50:]] + [after.seen[n] for n in sorted(after.seen)[:50]]
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert min(after.seen) <= last + 2, "numbers are missing"
    return (max(gaps) - statistics.median(gaps)) * 1000


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--cicada", default=os.path.join(ROOT, "build", "cicada"))
    ap.add_argument("--memory", default="512M")
    ap.add_argument("--count", type=int, default=10)
    ap.add_argument("--to", choices=["unix", "tcp"], default="tcp")
    args = ap.parse_args()
    folder = tempfile.mkdtemp(prefix="cicada-bench-")
    os.environ["XDG_RUNTIME_DIR"] = folder
    console = Console(f"{folder}/m0.serial")
    vm = subprocess.Popen([args.cicada, "run", "--engine", "xlate", "--name", "m0", "--memory", args.memory, "--kernel",
                           f"{CACHE}/kernel/vmlinuz", "--initrd", make_initrd(folder), "--cmdline",
                           "console=ttyS0 cicada.mode=script quiet", "--serial", f"unix:{console.path}"],
                          stdin=subprocess.DEVNULL)
    console.start()
    measured, seen = [], []
    try:
        while len(console.seen) < 100:
            time.sleep(0.1)
        for i in range(args.count):
            target, at, arrived = receive(args, folder, f"m{i + 1}")
            out = subprocess.run([args.cicada, "migrate", f"m{i}", "--to", at, "--json"], check=True,
                                 stdout=subprocess.PIPE).stdout
            while len(arrived.seen) < 60:
                time.sleep(0.05)
            measured.append(json.loads(out)["downtime_us"] / 1000)
            seen.append(silence(console, arrived))
            vm.wait()
            vm, console = target, arrived
            print(f"{i + 1}: source {measured[-1]:.1f} ms, serial port {seen[-1]:.1f} ms", flush=True)
    finally:
        vm.kill()
        subprocess.run(["rm", "-rf", folder], check=False)
    for name, list_ in ("source", measured), ("serial port", seen):
        print(f"downtime by the {name}: median {statistics.median(list_):.1f} ms, worst {max(list_):.1f} ms")


if __name__ == "__main__":
    main()
