# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios, checks; a table for people and JSON for machines."""
import json
import math
import os
import platform
import statistics
import sys
import time

from . import plot
from .cases import GROUPS

RATIOS = (("xlate", "native"), ("tcg", "native"), ("tcg", "xlate"))


def value(case, result):
    """Seconds on which the case is compared."""
    return (result.wall_ns if case.basis == "wall" else result.cpu_ns) / 1e9


def summarize(case, m):
    entry = {"group": case.group, "name": case.name, "basis": case.basis, "targets": {}, "ratios": {}}
    for target in m.targets:
        results = m.results.get((case.name, target.name))
        if results:
            values = [value(case, r) for r in results]
            entry["targets"][target.name] = {
                "seconds": statistics.median(values), "min": min(values), "max": max(values),
                "cpu_seconds": statistics.median(r.cpu_ns / 1e9 for r in results),
                "wall_seconds": statistics.median(r.wall_ns / 1e9 for r in results),
                "private_kib": max(r.private_kib for r in results),
                "runs": len(results), "outputs": sorted({r.output for r in results})}
    for above, below in RATIOS:
        a, b = entry["targets"].get(above), entry["targets"].get(below)
        if a and b and b["seconds"] > 0:
            entry["ratios"]["%s/%s" % (above, below)] = a["seconds"] / b["seconds"]
    return entry


def wrong_results(case, entry):
    """Every output of every target has to be the one of the host (or of the first target that ran)."""
    names = list(entry["targets"])
    if not names:
        return []
    first = names[0]
    expected = entry["targets"][first]["outputs"]
    wrong = []
    if len(expected) > 1:
        wrong.append("%s: %s differs from run to run: %s" % (case.name, first, " ; ".join(expected)))
    for name in names[1:]:
        if name == "tcg" and case.tcg_differs:
            continue
        if entry["targets"][name]["outputs"] != expected:
            wrong.append("%s: WRONG RESULT on %s: %s; %s has %s" % (
                case.name, name, " ; ".join(entry["targets"][name]["outputs"]), first, " ; ".join(expected)))
    return wrong


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def means(entries):
    out = {}
    for group in GROUPS:
        rows = [e for e in entries if e["group"] == group]
        if rows:
            out[group] = {}
            for above, below in RATIOS:
                key = "%s/%s" % (above, below)
                mean = geometric_mean([e["ratios"][key] for e in rows if key in e["ratios"]])
                if mean:
                    out[group][key] = mean
    return out


def cell(number, width, digits):
    return ("%*.*f" % (width, digits, number)) if number is not None else " " * (width - 1) + "-"


def row(name, seconds, ratios):
    return "%-26s %s   %s" % (name, " ".join(cell(s, 9, 3) for s in seconds), " ".join(
        cell(ratios.get("%s/%s" % pair), 12, 2) for pair in RATIOS))


def table(entries, mean):
    lines = ["%-26s %9s %9s %9s   %12s %12s %12s" % ("seconds", "native", "xlate", "TCG", *(
        "%s/%s" % pair for pair in RATIOS))]
    for group, title in GROUPS.items():
        rows = [e for e in entries if e["group"] == group]
        if not rows:
            continue
        basis = "elapsed" if rows[0]["basis"] == "wall" else "CPU"
        lines.append("%s (%s)" % (title, basis))
        for e in rows:
            lines.append(row("  " + e["name"], [e["targets"].get(t, {}).get("seconds") for t in (
                "native", "xlate", "tcg")], e["ratios"]))
        lines.append(row("  geometric mean", [None] * 3, mean.get(group, {})))
    return "\n".join(lines)


def cpu_model():
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            return next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def write(args, cases, m):
    entries = [summarize(case, m) for case in cases]
    mean = means(entries)
    print(table(entries, mean))
    wrong = [w for case, e in zip(cases, entries) for w in wrong_results(case, e)]
    failed = ["%s: FAILED on %s: %s" % f for f in m.failures]
    slower = ["%s: slower than TCG" % e["name"] for e in entries if e["ratios"].get("tcg/xlate", 9) < 1]
    for line in wrong + failed + slower:
        print(line)
    data = {"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "host": cpu_model(), "cpus": os.cpu_count(),
            "runs": args.runs, "quick": args.quick, "xlate_opts": args.xlate_opts, "cases": entries, "means": mean,
            "wrong": wrong, "failed": failed}
    if args.json:
        os.makedirs(os.path.dirname(os.path.abspath(args.json)), exist_ok=True)
        with open(args.json, "w", encoding="utf-8") as out:
            json.dump(data, out, indent=1)
            out.write("\n")
        print("results: %s" % args.json, file=sys.stderr)
    if args.plot:
        plot.write(data, args.plot)
        print("plot: %s" % args.plot, file=sys.stderr)
    return 1 if wrong or failed else 0
