"""Real agents whose model's server goes away and comes back: they work, are not ready, and say why."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chorus.dev import ModelServer, policy

from .conftest import Agent, Mesh, brought_up
from .test_run import until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(policy("oracle")) as server:
        yield server


@pytest.fixture(scope="module")
def mesh(needs: None, model: ModelServer) -> Iterator[Mesh]:
    yield from brought_up(2, CHORUS_AI_PROVIDER="ollama", OLLAMA_ENDPOINT=model.url, OLLAMA_MODEL=model.model)


def probe(agent: Agent, path: str) -> tuple[int, Any]:
    answer = httpx.get(agent.health + path, timeout=60, trust_env=False)
    return answer.status_code, answer.json()


def test_an_agent_without_its_model_works_and_is_not_ready(mesh: Mesh, model: ModelServer) -> None:
    agent = mesh.agents[0]
    ai = probe(agent, "/health")[1]["ai"]
    assert (ai["provider"], ai["model"], ai["ok"]) == ("ollama", model.model, True)
    assert ai["models"] == [{"provider": "ollama", "model": model.model, "local": True}]
    port = int(model.url.rpartition(":")[2])
    model.__exit__(None, None, None)
    status, said = until(lambda: (found := probe(agent, "/ready"))[0] == 503 and found)
    assert status == 503
    [reason] = said["reasons"]
    assert reason.startswith(f"ai: ollama: {model.model} is away: no connection")
    status, said = probe(agent, "/health")
    assert (status, said["status"]) == (200, "healthy")
    assert probe(agent, "/healthz")[0] == 200
    assert mesh.ctl("run", "--", "echo", "works").stdout == b"works\n"
    with ModelServer(policy("oracle"), port=port):
        until(lambda: all(probe(one, "/ready")[0] == 200 for one in mesh.agents))


def test_a_killed_mind_comes_back_and_is_counted(mesh: Mesh) -> None:
    agent = mesh.agents[0]
    pid = agent.processes()["mind"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: agent.processes().get("mind") not in (None, pid))
    until(lambda: probe(agent, "/health")[1].get("crashes", {}).get("mind") == 1)
