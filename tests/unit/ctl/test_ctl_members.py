"""`chorusctl members` against a stand-in for an agent: what is asked, refused and said."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from chorus.ctl import client as client_module
from chorus.ctl.cli import main

OLD, NEW = "01OLD", "01NEW"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def plan(**changes: Any) -> dict[str, Any]:
    this = {"agent_id": "a", "peer": "peer-a", "last": 90, "term": 4}
    return {
        "mesh": OLD, "leader": None, "needed": True, "why": "2 of its 3 voters cannot be reached",
        "voters": [
            {"agent_id": name, "peer": f"peer-{name}", "present": name == "a", "reachable": name == "a"}
            for name in "abc"
        ],
        "reachable": [{**this, "agent_id": "b", "last": 80}], "longest": "a", "this": this,
        "holds": {"tasks": 12, "decisions": 9, "versions": 3}, "bringing": False, **changes,
    }  # fmt: skip


class Mesh:
    """The answers of one agent, and what it was asked. `plans` are its plans, one after the other."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.plans: list[Any] = [plan()]
        self.statuses: list[Any] = [{"mesh": {"id": OLD, "members": 1}}]

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/api/v1/")
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, path, body))
        if path == "members/recovery":
            return self._next(self.plans)
        if path == "status":
            return self._next(self.statuses)
        if request.method == "DELETE":
            if "force" not in path:
                return httpx.Response(409, json={"detail": "b is present: stop it first"})
            return httpx.Response(200, json={"id": "b", "removed": True})
        if path.startswith("members?") or path == "members":
            item = {
                "agent_id": "b", "peer_id": "peer-b", "state": "removed", "voter": False, "role": "",
                "version": "", "removed_at": "2026-11-27", "reason": "away",
            }  # fmt: skip
            return httpx.Response(200, json={"items": [item], "next": None})
        return httpx.Response(202, json={})

    def did(self) -> list[tuple[str, str, Any]]:
        """What it was asked to change."""
        return [asked for asked in self.asked if asked[0] != "GET"]

    @staticmethod
    def _next(answers: list[Any]) -> httpx.Response:
        said = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(said, Exception):
            raise said
        if isinstance(said, int):
            return httpx.Response(said, json={"detail": "starting"})
        return httpx.Response(200, json=said)


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Mesh:
    monkeypatch.setenv("CHORUS_API_URL", "http://agent")
    monkeypatch.setenv("CHORUS_API_TOKEN", "t")
    monkeypatch.setattr("chorus.ctl.members.PAUSE_FIRST_S", 0.0)
    made, real = Mesh(), httpx.Client
    monkeypatch.setattr(
        client_module.httpx, "Client", lambda **_: real(transport=httpx.MockTransport(made.answer))
    )
    return made


Says = Callable[[str], None]


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Somebody at the terminal who gives this answer."""
    return lambda words: monkeypatch.setattr(sys, "stdin", Tty(words))


def test_the_list_shows_the_removed_when_asked(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["members"]) == 0
    assert "removed_at" not in capsys.readouterr().out
    assert main(["members", "--all"]) == 0
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["agent", "state", "votes", "role", "version", "peer", "removed", "reason"]
    assert row.split() == ["b", "removed", "no", "peer-b", "2026-11-27", "away"]
    assert [path for _, path, _ in mesh.asked] == ["members", "members?all=true"]


@pytest.mark.parametrize("words", [["remove", "b"], ["rejoin"], ["recover"]])
def test_nothing_is_done_without_a_yes(
    mesh: Mesh,
    person: Says,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    for answer in ("n\n", "\n", ""):
        person(answer)
        assert main(["members", *words]) == 1
        assert "nothing was done" in capsys.readouterr().err
    # Nobody is there to be asked.
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["members", *words]) == 2
    assert "--yes" in capsys.readouterr().err
    assert mesh.did() == []


def test_a_removal_says_why_not(mesh: Mesh, person: Says, capsys: pytest.CaptureFixture[str]) -> None:
    person("y\n")
    assert main(["members", "remove", "b"]) == 1
    assert "stop it first" in capsys.readouterr().err
    assert main(["members", "remove", "b", "--force", "--yes"]) == 0
    assert capsys.readouterr().out == "b: removed\n"
    assert main(["members", "--json", "remove", "a/b", "--force", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] is True
    paths = [path for _, path, _ in mesh.did()]
    assert paths == ["members/b", "members/b?force=true", "members/a%2Fb?force=true"]


def test_a_recovery_shows_its_plan_waits_and_says_what_it_has(
    mesh: Mesh, person: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    person("yes\n")
    mesh.plans = [
        plan(),
        httpx.ConnectError("refused"),
        503,
        plan(mesh=NEW),
        plan(mesh=NEW, leader="a", bringing=True, holds={"tasks": 1, "decisions": 0, "versions": 0}),
        plan(mesh=NEW, leader="a"),
    ]
    assert main(["members", "recover"]) == 0
    out, err = capsys.readouterr()
    assert "What only the lost agents know is lost" in " ".join(err.split())
    assert ["b", "80", "4"] in [line.split() for line in out.splitlines()]
    assert "a has 12 tasks, 9 decision records, 3 UCXL versions" in out
    assert f"mesh {NEW} goes on from mesh {OLD}, with 12 tasks, 9 decision records, 3 UCXL versions" in out
    assert mesh.did() == [("POST", "members/recover", {"mesh": OLD, "force": False})]


def test_a_recovery_in_json(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    mesh.plans = [plan(), plan(mesh=NEW, leader="a")]
    assert main(["members", "recover", "--json", "--yes"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "mesh": NEW,
        "recovers": OLD,
        "holds": {"tasks": 12, "decisions": 9, "versions": 3},
    }


def test_what_is_not_lost_is_not_recovered(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    mesh.plans = [plan(needed=False, why="the mesh has a leader")]
    assert main(["members", "recover", "--yes", "--force"]) == 1
    assert "the mesh has a leader" in capsys.readouterr().err
    assert mesh.did() == []


def test_an_agent_that_knows_less_recovers_only_by_force(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    mesh.plans = [plan(longest="b")]
    assert main(["members", "recover", "--yes"]) == 1
    assert "--agent b" in capsys.readouterr().err
    assert mesh.did() == []
    mesh.plans = [plan(longest="b"), plan(mesh=NEW, leader="a")]
    assert main(["members", "recover", "--yes", "--force"]) == 0
    assert mesh.did() == [("POST", "members/recover", {"mesh": OLD, "force": True})]


def test_an_agent_rejoins(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    mesh.statuses = [
        {"mesh": {"id": OLD, "members": 1}},
        httpx.ConnectError("refused"),
        {"mesh": {"id": None, "members": 0}},
        {"mesh": {"id": NEW, "members": 3}},
    ]
    assert main(["members", "rejoin", "--yes"]) == 0
    assert f"has left mesh {OLD} and is in mesh {NEW}" in capsys.readouterr().out
    assert mesh.did() == [("POST", "members/rejoin", None)]


def test_waiting_has_an_end(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("chorus.ctl.members.GIVE_UP_S", 0.0)
    assert main(["members", "rejoin", "--yes"]) == 125
    assert "chorusctl doctor" in capsys.readouterr().err
