"""The Docker daemon as chorusctl reaches it; what is wrong with it is told with what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from chorus.ctl.problems import CtlError

if TYPE_CHECKING:
    from docker import DockerClient

# Exports of a gigabyte are imported, and layers built, between two lines of an answer.
TIMEOUT_S: Final = 900
REMEDY: Final = (
    "start the daemon (apt-get install docker.io; dockerd), let this user use it, or set DOCKER_HOST"
)


@contextlib.contextmanager
def connected(timeout_s: float = TIMEOUT_S) -> Iterator[DockerClient]:
    """A client of the daemon that the environment names, once that has answered. Raises CtlError.

    What the daemon refuses while it is used is a CtlError too.
    """
    import docker
    import requests
    from docker.errors import DockerException

    client = None
    try:
        client = docker.from_env(timeout=timeout_s)
        client.ping()
    except Exception as error:
        # The SDK and what is below it raise all sorts of errors at what DOCKER_HOST may say.
        if client is not None:
            client.close()
        raise CtlError(f"the Docker daemon cannot be reached: {error}; {REMEDY}") from None
    try:
        yield client
    except (DockerException, requests.RequestException) as error:
        raise CtlError(f"the Docker daemon: {explained(error)}") from error
    finally:
        client.close()


def explained(error: Exception) -> str:
    """What the daemon said, without the address that it was asked at."""
    return str(getattr(error, "explanation", None) or error)


def error_in(lines: Iterable[dict[str, Any]]) -> str:
    """Reads an answer of the daemon to its end; the error that a line of it tells, or nothing."""
    found = ""
    for line in lines:
        found = found or error_of(line)
    return found


def error_of(line: dict[str, Any]) -> str:
    """The error that one line of an answer tells, or nothing."""
    # `error` is deprecated since version 1.48 of the API, and may be left out.
    return str((line.get("errorDetail") or {}).get("message") or line.get("error") or "")
