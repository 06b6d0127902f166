# SPDX-License-Identifier: Apache-2.0
"""What runs a case: the host itself, Cicada's translator, QEMU's translator. Same kernel, initramfs and command line."""
import dataclasses
import os
import shutil
import subprocess
import tempfile

QEMU = "qemu-system-x86_64"
CMDLINE = "console=ttyS0 quiet panic=-1"
# What the guests cannot see must not help the host either.
HIDE_AVX512 = {
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join("-AVX512" + part for part in (
        "F", "VL", "BW", "DQ", "CD", "ER", "PF", "IFMA", "VBMI", "_VBMI2", "_VNNI", "_BITALG", "_VPOPCNTDQ")),
    "OPENSSL_ia32cap": ":~0xdc230000:~0x5f42",  # AVX-512 F DQ IFMA PF ER CD BW VL; VBMI, VBMI2, GFNI and the like
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """A kind of guest. Cases with the same setup share one."""
    image: str
    cpus: int
    disk: bool = False
    net: bool = False

    @classmethod
    def of(cls, case):
        return cls(case.image, case.cpus, case.disk, case.net)

    @property
    def memory(self):
        return 1024


class Target:
    """Knows the command that starts an agent, and the places in its world."""
    name = title = ""
    is_vm = True

    def __init__(self, config):
        self.config = config
        cc1 = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True, check=False)
        self.places = {"disk": "/dev/vda", "net": "10.0.2.2", "port": 0, "cc1": cc1.stdout.strip(),
                       "python": os.path.realpath("/usr/bin/python3")}

    def command(self, setup):
        raise NotImplementedError

    def disk(self):
        """An image of its own: two VMs may not share one that is written to."""
        return os.path.join(self.config.cache, "bench", "disk-%s.raw" % self.name)

    def environment(self):
        return dict(os.environ)

    def folder(self):
        return None

    def images(self):
        return os.path.join(self.config.cache, "bench", "images")


class Native(Target):
    name, title, is_vm = "native", "native", False

    def __init__(self, config):
        super().__init__(config)
        # In memory, as the guests' files are. Made by copy: the cases create files there.
        self.work = tempfile.mkdtemp(prefix="cicada-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        shutil.copytree(os.path.join(self.images(), "tree"), self.work, dirs_exist_ok=True)
        self.places.update(disk=self.disk(), net="127.0.0.1")

    def command(self, setup):
        cores = sorted(os.sched_getaffinity(0))[-setup.cpus:]
        return ["taskset", "-c", ",".join(map(str, cores)), "./agent"]

    def environment(self):
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **HIDE_AVX512}

    def folder(self):
        return self.work

    def close(self):
        shutil.rmtree(self.work, ignore_errors=True)


class Xlate(Target):
    name, title = "xlate", "cicada"

    def command(self, setup):
        c = [self.config.cicada, "run", "--engine", "xlate", "--cpus", str(setup.cpus), "--memory",
             "%dM" % setup.memory, "--serial", "stdio", "--no-reboot", "--kernel",
             os.path.join(self.config.cache, "kernel", "vmlinuz"), "--initrd",
             os.path.join(self.images(), setup.image + ".cpio"), "--cmdline", CMDLINE]
        if self.config.xlate_opts:
            c += ["--xlate-opts", self.config.xlate_opts]
        if setup.disk:
            c += ["--disk", self.disk()]
        if setup.net:
            c += ["--net", "user"]
        return c

    def close(self):
        pass


class Tcg(Target):
    name, title = "tcg", "TCG"

    def command(self, setup):
        c = [QEMU, "-M", "pc", "-accel", "tcg", "-cpu", "max", "-smp", str(setup.cpus), "-m", str(setup.memory),
             "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
             os.path.join(self.config.cache, "kernel", "vmlinuz"), "-initrd",
             os.path.join(self.images(), setup.image + ".cpio"), "-append", CMDLINE]
        if setup.disk:
            c += ["-drive", "file=%s,if=none,id=d,format=raw,aio=io_uring" % self.disk(), "-device",
                  "virtio-blk-pci,drive=d"]
        if setup.net:
            c += ["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n"]
        return c

    def close(self):
        pass


TARGETS = {t.name: t for t in (Native, Xlate, Tcg)}
