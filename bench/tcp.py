"""The peer of a stream: plain TCP over loopback between two Pythons.

`python -m bench.tcp serve` prints its port; `python -m bench.tcp send PORT BYTES CHUNK` prints the megabytes
a second, as an array of one.
"""

from __future__ import annotations

import json
import socket
import sys
import time


def serve() -> None:
    """Answers each connection, at its end, with how many bytes it carried."""
    buffer = bytearray(2**20)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            with connection:
                got = 0
                while read := connection.recv_into(buffer):
                    got += read
                connection.sendall(str(got).encode())


def send(port: str, size: str, chunk_size: str) -> None:
    """So many bytes, until the other end says that it has all."""
    chunk, wanted = bytes(int(chunk_size)), int(size)
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        started = time.perf_counter()
        for _ in range(wanted // len(chunk)):
            connection.sendall(chunk)
        connection.shutdown(socket.SHUT_WR)
        got = int(connection.recv(64))
        taken = time.perf_counter() - started
    if got != wanted:
        raise RuntimeError(f"of {wanted} bytes {got} arrived")
    print(json.dumps([wanted / taken / 1e6]))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    serve() if what == "serve" else send(*rest)
