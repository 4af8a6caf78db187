"""What tests of several kinds need: a short private folder (Unix sockets), a Docker that answers, free
settings.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# With CHORUS_HEAVY=1 a test may take this long before it counts as hung, as properties have more cases then.
# In other runs the time is that of pyproject.toml.
HEAVY_TIMEOUT_S = 7200


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker of tests that take minutes: `make test-heavy` runs them, `make test` does not."""
    config.addinivalue_line("markers", "heavy: takes minutes; runs with CHORUS_HEAVY=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves heavy tests out unless they are asked for, and gives all the time that they need then."""
    asked = os.environ.get("CHORUS_HEAVY")
    for item in items:
        if asked and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(HEAVY_TIMEOUT_S))
        elif not asked and item.get_closest_marker("heavy"):
            item.add_marker(pytest.mark.skip(reason="heavy: make test-heavy runs it"))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names cases with long or unprintable bytes by number: compressed ones differ from second to second, and
    the workers of one run have to agree on the names.
    """
    if isinstance(val, bytes) and (len(val) > 40 or not val.isascii() or not val.decode().isprintable()):
        return argname
    return None


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder of this test's own whose path leaves room for the names of sockets."""
    path = Path(tempfile.mkdtemp(prefix="chorus-t-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


SMALL_DISK_BYTES = 4 * 1024 * 1024
# How long a server of the standard library may take to see that it is to stop.
POLL_S = 0.01


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(path)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def filler(small_disk: Path) -> Callable[[], Path]:
    """Uses up what room the small disk has; removing the file that it returns gives it back."""
    return lambda: _fill(small_disk / "filler")


def _fill(filler: Path) -> Path:
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


class _Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"OK")

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[[socketserver.BaseServer], None]]:
    """Has a server of the standard library answer until the test ends."""
    with contextlib.ExitStack() as stack:

        def begin(server: socketserver.BaseServer) -> None:
            stack.enter_context(server)
            threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
            stack.callback(server.shutdown)

        yield begin


@pytest.fixture
def docker_that_pings(short_dir: Path, serve: Callable[[socketserver.BaseServer], None]) -> str:
    """The address of a Docker daemon that can only answer a ping."""
    path = short_dir / "docker.sock"
    serve(socketserver.ThreadingUnixStreamServer(str(path), _Ping))
    return f"unix://{path}"
