"""The proxy at a Unix socket in a volume, as deploy/swarm/stack.yml runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from .conftest import PREFIX, SOCKET, Images, docker, run, until

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

VOLUME: Final = f"{PREFIX}-socket"
# Asks at the socket as an agent would, and prints the answer's status.
ASK: Final = """
import http.client, socket, sys
connection = http.client.HTTPConnection("docker")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/docker-proxy/docker.sock")
connection.request("GET", sys.argv[1])
print(connection.getresponse().status)
"""


@pytest.fixture
def proxies(images: Images) -> Iterator[list[str]]:
    """Two proxies, the second of which was started while the first one ran."""
    names = [f"{PREFIX}-socket-{number}" for number in range(2)]
    try:
        for name in names:
            start(images, name)
        yield names
    finally:
        for name in names:
            docker("rm", "-f", name, check=False)
        docker("volume", "rm", VOLUME, check=False)


def start(images: Images, name: str) -> None:
    """A proxy as the stack runs it; it answers."""
    hard = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    who = ("--user", f"65534:{SOCKET.stat().st_gid}", "-v", f"{SOCKET}:{SOCKET}:ro")
    own = ("-v", f"{VOLUME}:/run/docker-proxy", "--entrypoint", "/etc/docker-proxy/at-socket.sh")
    docker("run", "-d", "--name", name, *hard, *who, *own, images.proxy)
    until(lambda: docker("exec", name, "sh", "-c", "ls /run/docker-proxy/*.sock | wc -l") == "2")
    until(lambda: asked(images, "/_ping") == "200")


def asked(images: Images, path: str) -> str:
    """The status of the answer to one that has the agent's user and the volume; empty without one."""
    hard = ("--rm", "--network", "none", "--cap-drop", "ALL", "--entrypoint", "python3")
    words = ("-v", f"{VOLUME}:/run/docker-proxy:ro", images.agent, "-c", ASK, path)
    return run("docker", "run", *hard, *words, check=False).stdout.strip()


def test_an_agent_without_a_network_is_let_through_and_judged(images: Images, proxies: list[str]) -> None:
    assert asked(images, "/_ping") == "200"
    assert asked(images, "/v1.41/info") == "403"


def test_the_end_of_an_earlier_one_leaves_the_socket(images: Images, proxies: list[str]) -> None:
    docker("stop", proxies[0])
    assert asked(images, "/_ping") == "200"


def test_what_a_killed_one_left_is_no_hindrance(images: Images, proxies: list[str]) -> None:
    for name in proxies:
        docker("kill", name)
    assert asked(images, "/_ping") == ""
    docker("start", proxies[0])
    until(lambda: asked(images, "/_ping") == "200")


def test_whoever_has_the_volume_first_the_proxy_can_write_in_it(images: Images) -> None:
    name = f"{PREFIX}-socket-later"
    try:
        assert asked(images, "/_ping") == ""
        start(images, name)
    finally:
        docker("rm", "-f", name, check=False)
        docker("volume", "rm", VOLUME, check=False)
