"""Whether a Docker daemon answers, asked once before the start with nothing but the standard library.

The executor has the real client; loading that into the parent for one ping would cost it tens of megabytes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_HOST = "unix:///var/run/docker.sock"
# A daemon that is merely busy answers a ping within this.
PING_TIMEOUT_S = 5.0
TCP_PORT, TLS_PORT = 2375, 2376
# What container engines leave in the root of what they run.
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PING_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PING_TIMEOUT_S)
        self.sock.connect(self._path)


def docker_problem(
    docker_host: str | None, environ: Mapping[str, str], *, contained: bool | None = None
) -> str:
    """Why Docker cannot be used, and what to do; empty when the daemon answers.

    The remedy is another one in a container; `contained` says which, None looks.
    """
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
        inside = in_container() if contained is None else contained
        return f"{host}: {why or type(error).__name__}. {_remedy(host, error, inside)}"
    if answer.status != http.client.OK:
        remedy = "Start the Docker daemon there, or have the proxy before it let a ping through"
        return f"{host}: {answer.status} {answer.reason} was the answer to a ping. {remedy}"
    return ""


def in_container() -> bool:
    """Whether this process runs in a container: as its process 1, or below an engine's mark."""
    return os.getpid() == 1 or any(mark.exists() for mark in _CONTAINER_MARKS)


def _remedy(host: str, error: Exception, contained: bool) -> str:
    where = urlsplit(host)
    if isinstance(error, ssl.SSLError) or (where.scheme != "unix" and isinstance(error, FileNotFoundError)):
        return "Put ca.pem, cert.pem and key.pem, signed by the daemon's authority, into DOCKER_CERT_PATH"
    if where.scheme != "unix":
        network = "on a network that this container is on too, " if contained else ""
        return f"Start the Docker daemon or the proxy there, {network}or correct DOCKER_HOST"
    if isinstance(error, PermissionError):
        group = ""
        with contextlib.suppress(OSError):
            group = f" {Path(where.netloc + where.path).stat().st_gid}"
        if contained:
            return (
                f"Give the container the socket's group (docker run --group-add{group}), or set DOCKER_HOST "
                "to a filtering proxy (deploy/README.md)"
            )
        return f"Add this user to the group that owns the socket (group{group}), or set DOCKER_HOST"
    if contained:
        return (
            "Set DOCKER_HOST to a filtering proxy (deploy/README.md), or mount the socket "
            "(docker run -v /var/run/docker.sock:/var/run/docker.sock)"
        )
    return "Start the Docker daemon, mount /var/run/docker.sock or set DOCKER_HOST"


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
