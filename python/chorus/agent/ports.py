"""Finds out before the start whether the agent's ports are free, chooses those that may be any, and keeps
them.

A reservation is a socket that is bound and never listens: with SO_REUSEADDR on both sides the process that
serves the port binds beside it, and comes back to the same port after a crash, while nobody is given it as a
free one.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from chorus.agent.problems import INITIALIZE, StartupError, bind_line

# A free port must be free on each of several addresses; the kernel picks it for the first only.
FREE_PORT_ATTEMPTS = 20


class Reservation:
    """The addresses and the port that were got; `hosts` lacks those this machine does not have."""

    def __init__(self, hosts: tuple[str, ...], port: int, sockets: list[socket.socket]) -> None:
        self.hosts = hosts
        self.port = port
        self._sockets = sockets

    def close(self) -> None:
        """Gives the port back."""
        for each in self._sockets:
            each.close()


def reserve(variable: str, hosts: Sequence[str], port: int, *, skip_missing: bool = False) -> Reservation:
    """Reserves `port` (0: any) on all `hosts`; with `skip_missing` on those of them that this machine has."""
    attempts = FREE_PORT_ATTEMPTS if port == 0 else 1
    for attempt in range(attempts):
        try:
            return _reserve(hosts, port, skip_missing)
        except _Taken as taken:
            if attempt + 1 == attempts:
                raise StartupError(
                    bind_line(
                        f"{taken.host} port {taken.port} ({variable}). "
                        f"Set {variable} to a free port (0 takes any) or stop the program that has it"
                    )
                ) from None
        except _Unusable as unusable:
            raise StartupError(
                f"{INITIALIZE}: bind: {unusable}: {unusable.host} port {port} ({variable}). "
                f"Use an address of this machine, and a port this user may bind"
            ) from None
    raise AssertionError("the last attempt returns or raises")


class _Unusable(Exception):
    def __init__(self, host: str, why: str) -> None:
        super().__init__(why)
        self.host = host


class _Taken(_Unusable):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, "address already in use")
        self.port = port


def _reserve(hosts: Sequence[str], port: int, skip_missing: bool) -> Reservation:
    sockets: list[socket.socket] = []
    got: list[str] = []
    try:
        for host in hosts:
            try:
                bound = _bind(host, port)
            except OSError as error:
                missing = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                if missing and skip_missing and (got or host != hosts[-1]):
                    continue
                if error.errno == errno.EADDRINUSE:
                    raise _Taken(host, port) from None
                raise _Unusable(host, error.strerror or str(error)) from None
            sockets.append(bound)
            got.append(host)
            port = bound.getsockname()[1]
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return Reservation(tuple(got), port, sockets)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
