"""tests/cli/ranks_stranger.py HOW PORT - dials rank 0 as no sound rank would: noise; a rank 1 of another version or protocol; one that, once taken
in, sends lengths that cannot be."""
import os
import socket
import struct
import sys
import time

how, port = sys.argv[1], int(sys.argv[2])
MAGIC = b"tpc-rank"


def dial():
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 5)
        except OSError:
            time.sleep(0.02)
    sys.exit("nobody listens")


def hello(protocol=1, version=b"9.9.9", rank=1, tail=None):
    return struct.pack("<8sI24s64sIIHHQQ", MAGIC, protocol, version, b"elsewhere", 2, rank, 9, 0, 1, 2)


if how == "noise":
    for noise in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(4096), b"", MAGIC, MAGIC[:4], hello(rank=1)[:20]):
        s = dial()
        s.sendall(noise)
        s.close()
    quiet = [dial() for _ in range(20)]  # connect and say nothing
    time.sleep(0.2)
elif how in ("version", "protocol"):
    s = dial()
    s.sendall(hello(77) if how == "protocol" else hello())
    answer = s.recv(24)
    assert answer[:8] == MAGIC and struct.unpack("<I", answer[8:12])[0] == 75, answer
elif how == "length":
    # Rank 0's HELLO cannot be seen, so what must agree is guessed wrong: the lengths that follow must not matter.
    s = dial()
    s.sendall(hello() + struct.pack("<IIII", 1, 0, 0, 0xFFFFFFFF) + b"x" * 100000)
    time.sleep(0.2)
