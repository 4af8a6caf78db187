"""What the doctor says of the mesh: the words of the agents' own health, once each."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import contexts, doctor
from chorus.ctl.contexts import AgentEntry, MeshContext
from chorus.ctl.problems import CtlError

LOST = "agent-2 and agent-3 are away and a majority is lost: chorusctl members recover"


def health(election: str = "", coordinator: str = "", *warnings: str) -> dict[str, Any]:
    return {
        "election": {"ok": not election, "detail": election},
        "coordinator": {"ok": not coordinator, "detail": coordinator},
        "warnings": list(warnings),
    }


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What answers at each health address."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("CHORUS_CONTEXT", "CHORUS_HEALTH_PORT", "CHORUS_API_URL"):
        monkeypatch.delenv(name, raising=False)
    answers: dict[str, Any] = {}

    def get(url: str, **_: Any) -> httpx.Response:
        if url not in answers:
            raise httpx.ConnectError("refused")
        return httpx.Response(503, json=answers[url])

    monkeypatch.setattr(doctor.httpx, "get", get)
    return answers


def findings() -> list[tuple[bool, bool, str]]:
    return [(finding.ok, finding.needed, finding.detail) for finding in doctor._mesh()]


def test_a_lost_majority_and_another_mesh_are_said_once_with_what_to_do(said: dict[str, Any]) -> None:
    agents = [AgentEntry(f"agent-{n}", "", f"http://h{n}", "", "t", "d", 0) for n in (1, 2, 3)]
    contexts.save(MeshContext("local", "dev-1", tuple(agents)))
    other = "another mesh is met: chorusctl members rejoin"
    said["http://h1/health"] = health(LOST, "", other)
    said["http://h2/health"] = health(LOST, "bringing in 3 of 9", other)
    assert findings() == [
        (False, True, f"agent-1: {LOST}"),
        (False, False, other),
        (False, True, "agent-2: bringing in 3 of 9"),
    ]
    said["http://h1/health"] = said["http://h2/health"] = health()
    assert [ok for ok, _, _ in findings()] == [True]


def test_without_a_context_the_agent_of_this_environment_is_asked(
    said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings() == [(True, True, "no agent runs here")]
    said["http://127.0.0.1:8081/health"] = health(LOST)
    assert findings() == [(False, True, f"the agent here: {LOST}")]
    monkeypatch.setenv("CHORUS_HEALTH_PORT", "9")
    said["http://127.0.0.1:9/health"] = health("looking for a mesh")
    assert findings() == [(False, True, "the agent here: looking for a mesh")]
    monkeypatch.setenv("CHORUS_HEALTH_PORT", "none")
    assert findings() == [(True, True, "no agent runs here")]


@pytest.mark.parametrize("odd", [[], {}, {"election": 3}, {"election": {}, "coordinator": {}}, None])
def test_another_program_at_that_port_is_passed_over(said: dict[str, Any], odd: Any) -> None:
    said["http://127.0.0.1:8081/health"] = odd
    assert findings() == [(True, True, "no agent runs here")]


def test_an_agent_whose_model_is_away_is_named(said: dict[str, Any]) -> None:
    said["http://127.0.0.1:8081/health"] = {**health(), "ai": {"ok": False, "detail": "ollama: m is away"}}
    assert findings() == [(False, False, "the agent here has no model: ollama: m is away")]
    said["http://127.0.0.1:8081/health"] = {**health(), "ai": {"ok": True, "detail": ""}}
    assert [ok for ok, _, _ in findings()] == [True]


@contextmanager
def api(leader: str | None) -> Iterator[str]:
    """The API of an agent; who asks for anything else, or without its token, is refused."""
    mesh = {"leader": leader, "state": "candidate", "members": 3, "present": 2}
    members = [
        {"agent_id": "a", "present": True, "models": [{"model": "m"}], "model_reason": ""},
        {"agent_id": "b", "present": True, "models": [], "model_reason": "ollama: m is away"},
        {"agent_id": "c", "present": False, "models": [], "model_reason": ""},
    ]
    answers = {"/api/v1/status": {"mesh": mesh}, "/api/v1/agents": {"items": members, "next": None}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Bearer the-token-of-the-agent"
            body = json.dumps(answers[self.path]).encode() if known else b"{}"
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_agent_at_the_api_url_is_asked_as_by_other_commands(
    said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = (AgentEntry("agent-1", "", "http://h1", "", "t", "d", 0),)
    contexts.save(MeshContext("local", "dev-1", agents))
    said["http://h1/health"] = health(LOST)
    monkeypatch.setenv("CHORUS_API_TOKEN", "the-token-of-the-agent")
    with api(leader="a") as url:
        monkeypatch.setenv("CHORUS_API_URL", url)
        assert findings() == [
            (True, True, f"{url} answers; a leads 2 of 3"),
            (False, False, "b has no model: ollama: m is away"),
        ]
        # What agents of this environment would have is not asked about.
        assert doctor._model() == []
    with api(leader=None) as url:
        monkeypatch.setenv("CHORUS_API_URL", url)
        assert findings() == [(False, True, f"the mesh of {url} has no leader (candidate)")]
        monkeypatch.setenv("CHORUS_API_TOKEN", "another-token-of-an-agent")
        with pytest.raises(CtlError):
            findings()
    monkeypatch.setenv("CHORUS_API_TOKEN", "the-token-of-the-agent")
    with pytest.raises(CtlError, match=r"127\.0\.0\.1"):
        findings()
