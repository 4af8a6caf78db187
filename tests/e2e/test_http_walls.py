"""A stranger at the HTTP ports, and a hostile task before a person's terminal, on a real agent."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from .conftest import GENEROUS_S, Mesh, brought_up

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

MIB = 1024 * 1024
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HOSTILE = "\\033]0;owned\\007\\033[2J\\233x\\ty"


@pytest.fixture(scope="module")
def alone(needs: None) -> Iterator[Mesh]:
    yield from brought_up(1)


def resident_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("port", ["api", "health"])
@pytest.mark.parametrize("more", [b"X-A: " + b"b" * 8000 + b"\r\n", b"X-A: b\r\n" * 1000, b"b" * 65536])
def test_headers_without_end_take_no_memory(alone: Mesh, port: str, more: bytes) -> None:
    agent = alone.agents[0]
    base = urlsplit(getattr(agent, port))
    pid = agent.processes()["api"]
    before, highest, sent, answer = resident_bytes(pid), 0, 0, b""
    with socket.create_connection((base.hostname, base.port), GENEROUS_S) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(HEAD)
            while sent < 140 * MIB:
                client.sendall(more * 8)
                sent += 8 * len(more)
                highest = max(highest, resident_bytes(pid))
        with contextlib.suppress(ConnectionError):
            answer = client.recv(65536)
    assert answer == b"" or b" 431 " in answer.split(b"\r\n")[0]
    assert highest - before < 32 * MIB
    assert httpx.get(f"{agent.health}/healthz", trust_env=False).status_code == 200
    assert agent.processes()["api"] == pid


def test_a_hostile_task_does_not_reach_the_terminal(alone: Mesh) -> None:
    exact = b"\x1b]0;owned\x07\x1b[2J\x9bx\ty"
    command = f"printf '{HOSTILE}'"
    done = alone.ctl("run", "--title", "evil\x1b[2J\n\u202etitle", "--", command)
    assert done.stdout == exact
    task_id = json.loads(alone.ctl("tasks", "--json").stdout)["items"][0]["task_id"]
    assert alone.ctl("logs", "--raw", task_id).stdout == exact
    for words in (("logs", task_id), ("tasks",), ("task", task_id), ("log", "-n", "50")):
        shown = alone.ctl(*words).stdout.decode()
        assert {char for char in shown if not char.isprintable()} <= {"\n"}, words
