"""A proxy between a client that writes what it likes and a daemon whose every request is kept."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .conftest import SOCKET, docker, proxy_words, published, until_answered

# The proxy asks this itself, to know whose a container is and what an image is.
LOOK_UP = re.compile(rb"GET /v1\.[0-9]+/(containers|exec|images)/[a-z0-9:]+/json HTTP/1\.1\r\n")
# A line is there as soon as the request has been answered; this much only where none comes.
LOG_TIMEOUT_S = 120
FIELD = re.compile(r'(\w+)="?([^"]*)"?(?: |$)')


class Relay:
    """Listens in the daemon's place, hands everything on to it, and keeps what came."""

    def __init__(self, path: Path) -> None:
        self.received: list[bytearray] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                daemon = socket.socket(socket.AF_UNIX)
                daemon.connect(str(SOCKET))
                kept = bytearray()
                self.received.append(kept)
                for pair in ((client, daemon, kept.extend), (daemon, client, len)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, keep: Callable[[bytes], object]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                keep(data)
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class Log:
    """What a container writes, line by line."""

    def __init__(self, container: str) -> None:
        self._process = subprocess.Popen(
            ["docker", "logs", "--follow", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def refusal(self) -> tuple[str, dict[str, str]]:
        """The next line that names a refused request: as it stands, and its fields."""
        while not (line := self._lines.get(timeout=LOG_TIMEOUT_S)).startswith("refused "):
            pass
        return line, dict(FIELD.findall(line))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Answer:
    """What came back for one request."""

    status: int
    text: str


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request as it is written here; a body that is no bytes goes as JSON."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    if data is not None:
        headers = {"Content-Type": "application/json", **headers}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(errors="replace"))


def _answer(file: BinaryIO) -> Answer:
    line = file.readline()
    status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) .*\r\n", line)[1])  # type: ignore[index]
    length = int(http.client.parse_headers(file)["Content-Length"])
    return Answer(status, file.read(length).decode(errors="replace"))


@dataclass
class Watched:
    """A running proxy, its log and what reached the daemon behind it."""

    port: int
    log: Log
    relay: Relay

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`ask` of this proxy."""
        return ask(self.port, method, path, body, **headers)

    def send(self, data: bytes, answers: int = 1) -> list[Answer]:
        """The answers to raw bytes on a connection of their own."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(data)
            with connection.makefile("rb") as file:
                return [_answer(file) for _ in range(answers)]

    def refuses(self, what: Callable[[], Answer], reason: str, path: str = "", method: str = "") -> str:
        """The proxy refuses it, says so to the client and in its log, and no word of it reaches the daemon.

        Returns the line of the log.
        """
        before = len(self.relay.received)
        answer = what()
        assert answer.status in {400, 403, 404, 405, 413, 414, 501, 505}, answer
        line, fields = self.log.refusal()
        if method != "HEAD":
            assert json.loads(answer.text)["message"] == f"refused by the proxy: {fields['reason']}"
        assert reason in fields["reason"]
        assert fields["status"] == str(answer.status)
        assert fields["method"] == method or not method
        assert fields["path"] == path.partition("?")[0][:200] or not path
        assert line.isascii()
        assert line.isprintable()
        for request in self.relay.received[before:]:
            assert LOOK_UP.match(request), request
            assert request.endswith(b"\r\n\r\n")
        return line


@contextlib.contextmanager
def watch(image: str, name: str, folder: Path, settings: Sequence[str] = ()) -> Iterator[Watched]:
    """A proxy with these words of its environment, `NAME=VALUE`."""
    path = folder / f"{name[-8:]}.sock"
    folder.chmod(0o755)
    relay = Relay(path)
    words = [word for setting in settings for word in ("-e", setting)]
    docker(*proxy_words(image, name, "2375", *words, socket=path))
    try:
        port = published(name, 2375)
        until_answered(port)
        log = Log(name)
        yield Watched(port, log, relay)
        log.close()
    finally:
        docker("rm", "-f", name)
        relay.close()
