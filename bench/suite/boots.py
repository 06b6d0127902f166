# SPDX-License-Identifier: Apache-2.0
"""Whole boots: from the start of the VMM to a line on the guest's console.

The kernel boots end at the first line of the initramfs, the systemd boots at the login prompt. QEMU boots the bzImage
on its `pc` and the ELF on its `microvm`; there is no native counterpart.
"""
import dataclasses
import os
import re
import select
import subprocess
import tempfile
import time

from .session import Dead, Result, process_cpu_ns
from .targets import QEMU

MEMORY = 512


@dataclasses.dataclass(frozen=True)
class Boot:
    kernel: str       # below the cache
    initrd: str
    cmdline: str
    marker: bytes
    qemu_board: str
    disk: str = ""    # image below the cache; each boot gets a copy of its own


KERNEL_CMDLINE = "console=ttyS0 cicada.mode=poweroff"
USERSPACE = b"CICADA: userspace reached"
BOOTS = {
    "boot-bzimage": Boot("kernel/vmlinuz", "initramfs-plain.cpio", KERNEL_CMDLINE, USERSPACE, "pc"),
    # With ACPI, QEMU 7.2's microvm has no timer interrupt that this kernel finds: it hangs early.
    "boot-elf": Boot("vmlinux", "initramfs-plain.cpio", KERNEL_CMDLINE, USERSPACE, "microvm,acpi=off"),
    "boot-systemd": Boot("kernel/vmlinuz", "initramfs-boot.cpio", "console=ttyS0 root=/dev/vda", b" login: ", "pc",
                         disk="debian-systemd.ext4"),
}


def command(target, boot, cache, disk):
    kernel, initrd = os.path.join(cache, boot.kernel), os.path.join(cache, boot.initrd)
    if target.name == "xlate":
        c = [target.config.cicada, "run", "--engine", "xlate", "--cpus", "1", "--memory", "%dM" % MEMORY, "--serial",
             "stdio", "--no-reboot", "--kernel", kernel, "--initrd", initrd, "--cmdline", boot.cmdline]
        if target.config.xlate_opts:
            c += ["--xlate-opts", target.config.xlate_opts]
        return c + (["--disk", disk] if disk else [])
    c = [QEMU, "-M", boot.qemu_board, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(MEMORY), "-nodefaults",
         "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
         "-append", boot.cmdline]
    return c + (["-drive", "file=%s,if=virtio,format=raw" % disk] if disk else [])


def wait_for(child, marker, limit):
    """CPU and elapsed nanoseconds from the start of the process to the marker on its output."""
    begin, seen = time.monotonic(), b""
    while marker not in seen:
        left = begin + limit - time.monotonic()
        ready = left > 0 and select.select([child.stdout], [], [], left)[0]
        data = os.read(child.stdout.fileno(), 65536) if ready else b""
        if not data:
            raise Dead("no '%s' on the console: %s" % (marker.decode(), seen[-300:].decode("latin-1")))
        seen += data
    return process_cpu_ns(child.pid), int((time.monotonic() - begin) * 1e9)


def private_kib(pid):
    """Private memory beside the guest's RAM, which is the mapping of exactly that size."""
    total, is_ram, size = 0, False, re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
    with open("/proc/%d/smaps" % pid, encoding="ascii", errors="replace") as f:
        for line in f:
            range_ = size.match(line)
            if range_:
                length = int(range_.group(2), 16) - int(range_.group(1), 16)
                is_ram = length >= (MEMORY << 20) * 3 // 4 or "memfd:ram" in line
            elif line.startswith("Private_") and not is_ram:
                total += int(line.split()[1])
    return total


def measure(case, target, cache, limit):
    boot = BOOTS[case.name]
    with tempfile.TemporaryDirectory(prefix="cicada-bench-", dir=os.path.join(cache, "bench")) as scratch:
        disk = ""
        if boot.disk:
            disk = os.path.join(scratch, "disk.ext4")
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", os.path.join(cache, boot.disk), disk], check=True)
        child = subprocess.Popen(command(target, boot, cache, disk), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT)
        try:
            cpu, wall = wait_for(child, boot.marker, limit)
            memory = 0
            try:
                memory = private_kib(child.pid)
            except (OSError, ValueError):
                pass  # it was quicker to power off
            return Result(0, cpu, wall, wall, "reached", memory)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            child.stdin.close()
