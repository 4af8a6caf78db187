"""Every process of an agent stops to answer: each is restarted, counted and named, and the agent works on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from .conftest import Mesh, brought_up
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

PROCESSES = ("node", "election", "coordinator", "executor", "api")


@pytest.fixture(scope="module")
def alone(needs: None) -> Iterator[Mesh]:
    yield from brought_up(1)


def test_processes_that_hang(alone: Mesh) -> None:
    [agent] = alone.agents
    before = agent.processes()
    for name in PROCESSES:
        os.kill(before[name], signal.SIGSTOP)

    def told() -> Any:
        try:
            health = httpx.get(f"{agent.health}/health", trust_env=False, timeout=10)
        except httpx.TransportError:
            return None
        return health.json().get("unresponsive")

    until(lambda: (told() or {}).keys() >= set(PROCESSES))
    now = agent.processes()
    assert not {now[name] for name in PROCESSES} & {before[name] for name in PROCESSES}
    assert now["supervisord"] == before["supervisord"]
    assert alone.ctl("run", "--", "echo", "fine").stdout == b"fine\n"
