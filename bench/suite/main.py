# SPDX-License-Identifier: Apache-2.0
"""Command line of the benchmark."""
import argparse
import os
import shutil
import subprocess
import sys

from . import report
from .cases import CASES, GROUPS
from .devices import prepare_devices
from .measure import Measurement
from .perf import profile
from .session import Session
from .targets import QEMU, TARGETS, Setup

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def arguments():
    build = os.environ.get("BUILD", "build")
    p = argparse.ArgumentParser(prog="bench/run.py", formatter_class=argparse.RawDescriptionHelpFormatter,
                                description=sys.modules["__main__"].__doc__)
    p.add_argument("--cases", default=os.environ.get("CASES", ""), help="groups and names, by commas (default: all)")
    p.add_argument("--skip", default="", help="groups and names to leave out")
    p.add_argument("--only", default=",".join(TARGETS), help="targets, by commas: %s" % ",".join(TARGETS))
    p.add_argument("--runs", type=int, default=int(os.environ.get("RUNS", "3")), help="interleaved runs (default 3)")
    p.add_argument("--quick", action="store_true", help="one run of a fifth of the work")
    p.add_argument("--limit", type=float, default=90, help="seconds that one case may take")
    p.add_argument("--cicada", default=os.environ.get("CICADA", os.path.join(ROOT, build, "cicada")))
    p.add_argument("--cache", default=os.environ.get("CICADA_CACHE", os.path.join(ROOT, ".cache")))
    p.add_argument("--xlate-opts", default="", help="switches of the xlate engine")
    p.add_argument("--json", help="write all results to this file")
    p.add_argument("--plot", help="draw the ratios into this SVG file")
    p.add_argument("--perf", metavar="FILE", help="record one case of xlate with perf into FILE")
    p.add_argument("--command", action="append", help="run this in a guest of each target instead; may be repeated")
    p.add_argument("--image", default="base", help="initramfs for --command: base or full")
    p.add_argument("--cpus", type=int, default=1, help="processors for --command")
    p.add_argument("--list", action="store_true", help="name the cases and end")
    args = p.parse_args()
    args.cicada, args.cache = os.path.abspath(args.cicada), os.path.abspath(args.cache)
    if args.quick:
        args.runs = 1
    return args


def chosen(words, default):
    names = [w for w in words.replace(" ", ",").split(",") if w]
    for name in names:
        if name not in GROUPS and name not in {c.name for c in CASES}:
            sys.exit("bench: no case or group '%s'; --list names them" % name)
    return [c for c in CASES if c.group in names or c.name in names] if names else default


def targets(args):
    names = args.only.split(",")
    for name in names:
        if name not in TARGETS:
            sys.exit("bench: no target '%s'; there are %s" % (name, ", ".join(TARGETS)))
    if "tcg" in names and not shutil.which(QEMU):
        print("bench: %s is not installed: measured without it" % QEMU, file=sys.stderr)
        names.remove("tcg")
    return [TARGETS[name](args) for name in TARGETS if name in names]


def prepare_boots(args, cases):
    if not any(c.boot for c in cases) or args.command:
        return
    guest = os.path.join(ROOT, "tools", "guest")
    for script in (["vmlinux.sh"], ["initramfs.sh", "plain"], ["initramfs.sh", "boot"], ["rootfs.sh", "systemd"]):
        if script[0] != "rootfs.sh" or any(c.group == "systemd" for c in cases):
            subprocess.run([os.path.join(guest, script[0]), *script[1:]], check=True)


def commands(args, measured):
    """Any program of the image, on each target: to look into one case by hand."""
    for target in measured:
        session = Session(target, Setup(args.image, args.cpus))
        for command in args.command:
            r = session.run(command.split(), args.limit)
            print("%-7s %8.3f s CPU %8.3f s wall, status %d: %s: %s" % (
                target.title, r.cpu_ns / 1e9, r.wall_ns / 1e9, r.status, command, r.output), flush=True)
        session.close()
        target.close()
    return 0


def main():
    args = arguments()
    if args.list:
        for group, title in GROUPS.items():
            print("%-8s %s: %s" % (group, title, " ".join(c.name for c in CASES if c.group == group)))
        return 0
    cases = chosen(args.cases, CASES)
    skipped = {c.name for c in chosen(args.skip, [])}
    cases = [c for c in cases if c.name not in skipped]
    subprocess.run([os.path.join(ROOT, "bench", "guest", "image.sh")], check=True)
    if args.perf:
        return profile(args, cases)
    prepare_boots(args, cases)
    measured = targets(args)
    if args.command:
        return commands(args, measured)
    m = Measurement(measured, args.quick, args.limit, args.cache)
    server = prepare_devices(cases, measured)
    try:
        for number in range(args.runs):
            m.turn(cases, number + 1, args.runs)
    except KeyboardInterrupt:
        print("bench: interrupted; what follows is what there is", file=sys.stderr)
    finally:
        for session in m.sessions.values():
            session.kill()
        for target in measured:
            target.close()
        if server:
            server.close()
    return report.write(args, cases, m)
