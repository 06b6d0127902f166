# SPDX-License-Identifier: Apache-2.0
"""One running agent: a VM whose serial console is its standard input and output, or the agent itself on the host.

The protocol is described in bench/guest/agent/agent.c. Processor time of a VMM is that of the whole process, all its
threads, user and system: utime + stime of /proc/PID/stat, but read through the process's CPU clock, which has the
same sum in nanoseconds instead of hundredths of a second.
"""
import dataclasses
import os
import select
import signal
import subprocess
import tempfile
import time


class Dead(Exception):
    """The agent does not answer any more; the message says what is known."""


@dataclasses.dataclass
class Result:
    status: int
    cpu_ns: int         # of the VMM's process, or of the program itself on the host
    wall_ns: int        # by the guest's clock
    host_wall_ns: int   # by the host's clock
    output: str         # hash, length and beginning of what the program wrote
    private_kib: int = 0  # of the VMM beside guest RAM, where it was looked at

    @property
    def good(self):
        return self.status == 0


def process_cpu_ns(pid):
    """The clock that clock_getcpuclockid(3) names: ~pid << 3 | CPUCLOCK_SCHED."""
    return time.clock_gettime_ns((~pid << 3) | 2)


class Session:
    def __init__(self, target, setup, boot_limit=90):
        self.target = target
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(target.command(setup), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.errors, env=target.environment(), cwd=target.folder())
        self.pending, self.other = b"", []
        try:
            self.expect("@ready", boot_limit)
            self.boot_cpu_ns = process_cpu_ns(self.child.pid)
            if setup.disk or setup.net:
                self.prepare_devices(setup)
        except BaseException:
            self.kill()
            raise

    def prepare_devices(self, setup):
        if not self.target.is_vm:
            return
        self.must("/bin/busybox sh modules/load.sh")
        if setup.net:
            self.must("/bin/busybox ifconfig lo 127.0.0.1 up")
            self.must("/bin/busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up")

    def must(self, command):
        result = self.run(command.split(), 60)
        if not result.good:
            raise Dead("'%s' ended with %d: %s" % (command, result.status, result.output))

    def line(self, deadline):
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self.child.stdout], [], [], left)[0]
            data = os.read(self.child.stdout.fileno(), 65536) if ready else b""
            if not data:
                raise Dead(self.post_mortem("no answer in time" if not ready else "ended"))
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode("latin-1").strip()

    def expect(self, word, limit):
        deadline = time.monotonic() + limit
        while True:
            line = self.line(deadline)
            if line.startswith(word):
                return line
            if line:
                self.other = (self.other + [line])[-12:]

    def post_mortem(self, what):
        if what == "ended":
            what = "ended with %s" % self.child.wait()
        self.errors.seek(0)
        tail = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        tail = [line for line in tail if "error" in line or "warn" in line][:6] or tail[-6:]
        return "%s: %s: %s" % (self.target.title, what, " | ".join(self.other + tail))

    def send(self, data):
        try:
            self.child.stdin.write(data)
            self.child.stdin.flush()
        except OSError:
            raise Dead(self.post_mortem("ended")) from None

    def run(self, words, limit, at_begin=None):
        """Runs one command in the guest; at_begin(pid) is called just before it starts (for a profiler)."""
        self.send(("run %s\n" % " ".join(words)).encode())
        self.expect("@begin", 30)
        if at_begin:
            at_begin(self.child.pid)
        wall, cpu = time.monotonic_ns(), process_cpu_ns(self.child.pid)
        self.send(b"g")
        self.expect("@stop", limit)
        cpu, wall = process_cpu_ns(self.child.pid) - cpu, time.monotonic_ns() - wall
        _, status, guest_wall, guest_cpu, rest = self.expect("@end", 30).split(" ", 4)
        return Result(int(status), cpu if self.target.is_vm else int(guest_cpu), int(guest_wall), wall, rest)

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        for stream in (self.child.stdin, self.child.stdout, self.errors):
            try:
                stream.close()
            except OSError:
                pass

    def close(self):
        """Lets the guest power off; kills it where it does not."""
        try:
            self.send(b"quit\n")
            self.child.wait(15)
        except (Dead, subprocess.TimeoutExpired):
            pass
        self.kill()
