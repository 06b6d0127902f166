# SPDX-License-Identifier: Apache-2.0
"""The host's side of the disk and network cases: an image for each target, and a server."""
import os
import subprocess

DISK_MIB = 256


def make_disk(path, text):
    """A raw image whose first half holds text and whose second half is empty."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(text, "rb") as f:
        content = f.read()
    with open(path, "wb") as out:
        written = 0
        while written < DISK_MIB << 19:
            # Each copy differs, or two blocks could be mistaken for each other.
            part = b"%016d" % written + content[16:]
            out.write(part[:(DISK_MIB << 19) - written])
            written += len(part)
        out.truncate(DISK_MIB << 20)


class Server:
    """`bench serve` on the loopback interface, which a guest reaches as 10.0.2.2."""

    def __init__(self, program):
        self.child = subprocess.Popen([program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


def prepare_devices(cases, measured):
    """Disk images for the targets, and the server of the network cases where there are any."""
    if any(c.disk for c in cases):
        for target in measured:
            make_disk(target.disk(), os.path.join(target.images(), "tree", "data", "text"))
    if not any(c.net for c in cases):
        return None
    server = Server(os.path.join(measured[0].images(), "tree", "bench"))
    for target in measured:
        target.places["port"] = server.port
    return server
