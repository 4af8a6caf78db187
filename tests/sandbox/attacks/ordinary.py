"""What ordinary programs do: threads, processes, sockets, files, and a compiler where there is one."""

import asyncio
import mmap
import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path


async def over_loopback() -> bytes:
    """A server and a client of this process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(b"hello\n")
    line = await reader.readline()
    writer.close()
    server.close()
    shell = await asyncio.create_subprocess_exec("true")
    assert await shell.wait() == 0
    return line


def main() -> None:
    """All of it."""
    done = threading.Event()
    threading.Thread(target=done.set).start()
    assert done.wait(60)
    with multiprocessing.Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    assert asyncio.run(over_loopback()) == b"hello\n"
    for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM).close()
    one, other = socket.socketpair()
    one.send(b"x")
    assert other.recv(1) == b"x"
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 4096)
        file.flush()
        mmap.mmap(file.fileno(), 4096).close()
    select.epoll().close()
    os.close(os.memfd_create("x"))
    os.close(os.eventfd(0))
    signal.setitimer(signal.ITIMER_REAL, 1000)
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    if shutil.which("gcc"):
        Path("main.c").write_text("int main(void) { return 7; }\n")
        subprocess.run(["gcc", "main.c", "-o", "main"], check=True)
        assert subprocess.run(["./main"], check=False).returncode == 7
    print("all of it works")


if __name__ == "__main__":
    main()
