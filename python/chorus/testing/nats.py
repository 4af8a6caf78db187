"""A real nats-server in a process of its own, for tests: built once, started, paused, killed and started
again at the same address.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

NATS_SERVER: Final = "github.com/nats-io/nats-server/v2@v2.15.2"
BUILD_S: Final = 900


def _binary() -> Path:
    """nats-server, built once into the cache; skipped where that cannot be done."""
    cache = Path(os.environ.get("CHORUS_CACHE") or Path.home() / ".cache" / "chorus")
    binary = cache / "test-peers" / "nats-server"
    if not binary.exists():
        if shutil.which("go") is None:
            pytest.skip("no Go, which nats-server is built with")
        binary.parent.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, "GOBIN": str(binary.parent)}
        built = subprocess.run(
            ["go", "install", NATS_SERVER], env=environ, capture_output=True, timeout=BUILD_S
        )
        if built.returncode:
            pytest.skip(f"nats-server cannot be built here: {built.stderr.decode()[-300:]}")
    return binary


class Nats:
    """A real nats-server, on 127.0.0.1 while the block runs."""

    def __init__(self) -> None:
        self._path = _binary()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when it is ready."""
        command = [str(self._path), "-a", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        while b"Server is ready" not in (line := self._process.stderr.readline()):
            assert line, "nats-server ended"

    def pause(self) -> None:
        """It lives and says nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Ends it, as a machine that dies would."""
        self._process.kill()
        self._process.wait()
