"""Whether a Docker daemon answers, asked once before the start with nothing but the standard library.

The executor has the real client; loading that into the parent for one ping would cost it tens of megabytes.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_HOST = "unix:///var/run/docker.sock"
# A daemon that is merely busy answers a ping within this.
PING_TIMEOUT_S = 5.0
TCP_PORT, TLS_PORT = 2375, 2376
_REMEDY = "Start the Docker daemon, mount /var/run/docker.sock or set DOCKER_HOST"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PING_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PING_TIMEOUT_S)
        self.sock.connect(self._path)


def docker_problem(docker_host: str | None, environ: Mapping[str, str]) -> str:
    """Why Docker cannot be used, and what to do; empty when the daemon answers."""
    host = docker_host or DEFAULT_HOST
    try:
        connection = _connection(host, environ)
        try:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"{host}: {why or type(error).__name__}. {_REMEDY}"
    if answer.status != http.client.OK:
        return f"{host}: the daemon answered {answer.status} {answer.reason} to a ping. {_REMEDY}"
    return ""


def _connection(host: str, environ: Mapping[str, str]) -> http.client.HTTPConnection:
    where = urlsplit(host)
    if where.scheme == "unix":
        return _UnixConnection(where.netloc + where.path)
    secure = where.scheme == "https" or bool(environ.get("DOCKER_TLS_VERIFY"))
    name = where.hostname or "localhost"
    if not secure:
        return http.client.HTTPConnection(name, where.port or TCP_PORT, timeout=PING_TIMEOUT_S)
    folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=_existing(folder / "ca.pem"))
    if (folder / "cert.pem").is_file():
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return http.client.HTTPSConnection(name, where.port or TLS_PORT, timeout=PING_TIMEOUT_S, context=context)


def _existing(path: Path) -> str | None:
    return str(path) if path.is_file() else None
