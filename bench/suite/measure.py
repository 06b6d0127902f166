# SPDX-License-Identifier: Apache-2.0
"""Runs cases on targets in turn and keeps every result.

Each run has fresh guests, so that every run pays for translation once. Within a run the guests of all targets stand
side by side, idle, and take turns case by case: a change of the machine's speed touches all alike.
"""
import sys

from . import boots
from .session import Dead, Session
from .targets import Setup


class Measurement:
    def __init__(self, targets, quick, limit, cache):
        self.targets, self.quick, self.limit, self.cache = targets, quick, limit, cache
        self.sessions = {}
        self.dead_starts = {}  # (target name, setup) -> starts in a row that failed
        self.results = {}   # (case name, target name) -> list of Result
        self.failures = []  # (case name, target name, message)

    def session(self, target, setup):
        key = (target.name, setup)
        if self.dead_starts.get(key, 0) >= 2:
            raise Dead("not tried: its guest did not start twice")
        if key not in self.sessions:
            self.dead_starts[key] = self.dead_starts.get(key, 0) + 1
            self.sessions[key] = Session(target, setup)
            self.dead_starts[key] = 0
            # No case shall pay for the first translation of the kernel's fork, exec and exit.
            for _ in range(3):
                self.sessions[key].must("./bench nop")
        return self.sessions[key]

    def drop(self, target, setup):
        session = self.sessions.pop((target.name, setup), None)
        if session:
            session.kill()

    def one(self, case, target):
        setup = Setup.of(case)
        try:
            if case.boot:
                return self.keep(case, target, boots.measure(case, target, self.cache, self.limit * 2))
            session = self.session(target, setup)
            for command in case.prepare:
                session.must(command.format(**target.places))
            result = session.run(case.words(self.quick, target), self.limit)
        except Dead as dead:
            self.drop(target, setup)
            self.failures.append((case.name, target.name, str(dead)))
            return None
        if not result.good:
            self.failures.append((case.name, target.name, "exit status %d: %s" % (result.status, result.output)))
            return None
        return self.keep(case, target, result)

    def keep(self, case, target, result):
        self.results.setdefault((case.name, target.name), []).append(result)
        return result

    def turn(self, cases, number, total):
        """One run of all cases; a setup's guests end before those of the next start."""
        for setup in dict.fromkeys(Setup.of(c) for c in cases):
            for case in (c for c in cases if Setup.of(c) == setup):
                text = []
                for target in (t for t in self.targets if t.name in case.only):
                    result = self.one(case, target)
                    text.append("%s %s" % (target.title, "%.3f s" % (result.cpu_ns / 1e9) if result else "FAILED"))
                print("run %d of %d: %-20s %s" % (number, total, case.name, ", ".join(text)), file=sys.stderr, flush=True)
            self.close()

    def close(self):
        for session in self.sessions.values():
            session.close()
        self.sessions = {}
