# SPDX-License-Identifier: Apache-2.0
"""One case of the translator under `perf record`, from the moment it starts to the moment it ends."""
import signal
import subprocess
import sys
import time

from .devices import prepare_devices
from .session import Session
from .targets import Setup, Xlate


def profile(args, cases):
    if len(cases) != 1:
        sys.exit("bench: --perf takes one case; this is %d" % len(cases))
    case, target, recorder = cases[0], Xlate(args), []

    def attach(pid):
        recorder.append(subprocess.Popen(["perf", "record", "-q", "-p", str(pid), "-o", args.perf],
                                         stdout=subprocess.DEVNULL))
        time.sleep(0.5)  # perf has no sign of readiness that would not disturb the guest

    server = prepare_devices(cases, [target])
    session = Session(target, Setup.of(case))
    try:
        for command in case.prepare:
            session.must(command.format(**target.places))
        result = session.run(case.words(args.quick, target), args.limit, attach)
    finally:
        for r in recorder:
            r.send_signal(signal.SIGINT)
            r.wait()
        session.kill()
        if server:
            server.close()
    print("%s: %.3f s CPU, status %d, %s" % (case.name, result.cpu_ns / 1e9, result.status, result.output))
    print("perf report -i %s" % args.perf)
    return 0 if result.good else 1
