# SPDX-License-Identifier: Apache-2.0
# A TCP stream whose every block follows from its number, for tests/state/loops.sh.
#   stream.py serve            on the host: prints its port, sends blocks from the number that a client asks for
#   stream.py fetch HOST PORT  in the guest: takes blocks and checks them; where the connection ends (the VM has gone on
#                              in another process) it comes again for the block that it has not had
import hashlib, socket, struct, sys, threading, time

BLOCK = 65536
REPORT = 16  # blocks a line: 1 MiB
PAUSE = 0.01  # between two blocks: a load, not a measurement


def block(number):
    return hashlib.shake_128(struct.pack("!Q", number)).digest(BLOCK)


def take(s, size):
    data = b""
    while len(data) < size:
        part = s.recv(size - len(data))
        if not part:
            raise OSError("end")
        data += part
    return data


def send(s):
    with s:
        try:
            number, = struct.unpack("!Q", take(s, 8))
            while True:
                s.sendall(block(number))
                number += 1
                time.sleep(PAUSE)
        except OSError:
            pass


def serve():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=send, args=(listener.accept()[0],), daemon=True).start()


def fetch(host, port):
    number = connections = 0
    while True:
        try:
            with socket.create_connection((host, port), timeout=2) as s:
                connections += 1
                s.sendall(struct.pack("!Q", number))
                while True:
                    if take(s, BLOCK) != block(number):
                        print(f"stream WRONG: block {number}", flush=True)
                    number += 1
                    if number % REPORT == 0:
                        print(f"stream {number // REPORT} {connections}", flush=True)  # MiB so far, connections
        except OSError:
            time.sleep(0.2)


if sys.argv[1] == "serve":
    serve()
else:
    fetch(sys.argv[2], int(sys.argv[3]))
