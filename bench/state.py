#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times of snapshots, restores and clones, beside QEMU's where it has the same. Prints medians and the 99th percentile.

usage: state.py [--cicada PROGRAM] [--runs N] [--clones N] [CASE]...      cases: restore first-byte clone pause qemu
"""
import argparse, json, os, shutil, socket, statistics, struct, subprocess, sys, tempfile, time

LOAD = 0x100000


def kernel(path, mib, dirty_mib=0, idle=False):
    """A multiboot kernel that writes to each page of its memory, then prints 'x' for ever, and meanwhile writes to
    dirty_mib MiB again and again; or prints it once and halts."""
    code = b""

    def fill(end, then):
        # mov edi, 2 MiB; l: mov [edi], edi; add edi, 4096; cmp edi, end; jb l
        return b"\xbf" + struct.pack("<I", 2 << 20) + b"\x89\x3f\x81\xc7\x00\x10\x00\x00\x81\xff" + struct.pack(
            "<I", end) + b"\x72\xf0" + then

    code += fill((mib - 1) << 20, b"\xba\xf8\x03\x00\x00")  # mov edx, 0x3f8
    loop = len(code)
    if dirty_mib:
        code += fill((2 + dirty_mib) << 20, b"")
    if idle:
        code += b"\xb0x\xee\xfa\xf4\xeb\xfd"  # mov al, 'x'; out; cli; hlt; jmp to the hlt
    code += b"\xb0x\xee" + b"\xb9\x00\x10\x00\x00\xe2\xfe"  # mov al, 'x'; out; mov ecx, 4096; loop $
    code += b"\xe9" + struct.pack("<i", loop - len(code) - 5)
    head = struct.pack("<8I", 0x1BADB002, 0x10000, 0x100000000 - 0x1BADB002 - 0x10000, LOAD, LOAD, 0, 0, LOAD + 32)
    with open(path, "wb") as f:
        f.write(head + code)


class Bench:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.env = dict(os.environ, XDG_RUNTIME_DIR=folder)
        self.count = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *args):
        return subprocess.run([self.program, *args], env=self.env, check=True, capture_output=True, text=True).stdout

    def start(self, *args):
        """A VM in the background; returns the process and the time at which it was started."""
        begin = time.monotonic()
        p = subprocess.Popen([self.program, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        return p, begin

    def end(self, p):
        p.kill()
        p.wait()
        p.stdout.close()

    def guest(self, name, mib, dirty_mib=0, idle=False):
        kernel(self.path("kernel"), mib, dirty_mib, idle)
        p, _ = self.start("run", "--engine", "xlate", "--boot", "multiboot", "--kernel", self.path("kernel"), "-m",
                          f"{mib}M", "--name", name)
        os.read(p.stdout.fileno(), 1)  # it has filled its memory
        return p


def first_byte(p, begin):
    os.read(p.stdout.fileno(), 1)
    return time.monotonic() - begin


def show(what, seconds):
    ms = sorted(1000 * s for s in seconds)
    p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
    print(f"{what:<60} median {statistics.median(ms):8.2f} ms   p99 {p99:8.2f} ms   of {len(ms)}", flush=True)


def private_kib(pid):
    """Memory of a process that nobody shares, in KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return sum(int(l.split()[1]) for l in f if l.startswith(("Private_Clean", "Private_Dirty")))


def case_restore(b, opt):
    p = b.guest("bench", 256)
    b.run("snapshot", "bench", "--to", b.path("full"))
    b.end(p)
    times = []
    for _ in range(opt.runs):
        p, begin = b.start("restore", b.path("full"), "--engine", "xlate")
        times.append(first_byte(p, begin))
        b.end(p)
    show("restore of 256 MiB, process start to first serial byte", times)
    times = []
    for _ in range(max(3, opt.runs // 10)):
        p, begin = b.start("restore", b.path("full"), "--engine", "xlate", "--eager")
        times.append(first_byte(p, begin))
        b.end(p)
    show("the same with --eager", times)
    shutil.rmtree(b.path("full"))


def case_clone(b, opt):
    p = b.guest("bench", 256, idle=True)  # a hundred that work at once would measure the host's scheduler
    drain = subprocess.Popen(["cat"], stdin=p.stdout, stdout=subprocess.DEVNULL)
    begin = time.monotonic()
    clones = json.loads(b.run("clone", "bench", "--count", str(opt.clones), "--json"))
    total = time.monotonic() - begin
    private = [private_kib(c["pid"]) for c in clones]
    for c in clones:
        os.kill(c["pid"], 9)
    b.end(p)
    drain.wait()
    show("clone of 256 MiB, fork to running", [c["start_ns"] / 1e9 for c in clones])
    print(f"    all with their snapshot: {1000 * total:.0f} ms; private memory soon after: median "
          f"{statistics.median(private):.0f} KiB, largest {max(private)} KiB")


def case_pause(b, opt):
    for mib, dirty in ((256, 0), (1024, 64)):
        p = b.guest("bench", mib, dirty)
        pauses, totals = [], []
        drain = subprocess.Popen(["cat"], stdin=p.stdout, stdout=subprocess.DEVNULL)
        for i in range(max(3, opt.runs // 10)):
            begin = time.monotonic()
            out = b.run("snapshot", "bench", "--to", b.path("live"))
            totals.append(time.monotonic() - begin)
            pauses.append(float(out.split()[-2]) / 1000)
            shutil.rmtree(b.path("live"))
        b.end(p)
        drain.wait()
        show(f"live snapshot of {mib} MiB, {dirty} MiB dirty: pause", pauses)
        show("    whole", totals)


def case_qemu(b, opt):
    """The nearest that QEMU has: migrate to a file, and start from it."""
    kernel(b.path("kernel"), 256)
    base = ["qemu-system-x86_64", "-M", "pc", "-accel", "tcg", "-m", "256", "-display", "none", "-nodefaults", "-serial",
            "stdio", "-kernel", b.path("kernel")]
    monitor = b.path("qmp")
    p = subprocess.Popen(base + ["-qmp", f"unix:{monitor},server=on,wait=off"], stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE)
    while os.read(p.stdout.fileno(), 1) != b"x":
        pass
    drain = subprocess.Popen(["cat"], stdin=p.stdout, stdout=subprocess.DEVNULL)
    s = socket.socket(socket.AF_UNIX)
    s.connect(monitor)
    f = s.makefile("rw")
    f.readline()

    def command(name, **arguments):
        f.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        f.flush()
        while True:
            answer = json.loads(f.readline())
            if "return" in answer:
                return answer["return"]

    command("qmp_capabilities")
    command("migrate", uri=f"exec:cat > {b.path('qemu.state')}")
    while command("query-migrate").get("status") != "completed":
        time.sleep(0.05)
    command("quit")
    p.wait()
    drain.wait()
    times = []
    for _ in range(max(3, opt.runs // 5)):
        begin = time.monotonic()
        p = subprocess.Popen(base + ["-incoming", f"exec:cat {b.path('qemu.state')}"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE)
        times.append(first_byte(p, begin))
        b.end(p)
    show("QEMU (TCG) from a migration file, to first serial byte", times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cicada", default="build/cicada")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--clones", type=int, default=100)
    parser.add_argument("cases", nargs="*", default=[])
    opt = parser.parse_args()
    cases = {"restore": case_restore, "clone": case_clone, "pause": case_pause, "qemu": case_qemu}
    with tempfile.TemporaryDirectory(prefix="cicada-state.") as folder:
        b = Bench(os.path.abspath(opt.cicada), folder)
        for name in opt.cases or cases:
            cases[name](b, opt)


if __name__ == "__main__":
    sys.exit(main())
