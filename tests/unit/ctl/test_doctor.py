"""What the doctor says of the mesh: the words of the agents' own health, once each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import contexts, doctor
from chorus.ctl.contexts import AgentEntry, MeshContext

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
    for name in ("CHORUS_CONTEXT", "CHORUS_HEALTH_PORT"):
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
