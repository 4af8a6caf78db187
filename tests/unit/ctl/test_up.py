"""What `chorusctl up` keeps of a mesh and hands to its agents, and when it gives up before they are ready."""

from __future__ import annotations

import json
import re
import stat
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl import up as up_module
from chorus.ctl.agents import Started
from chorus.ctl.contexts import AgentEntry, MeshContext
from chorus.ctl.doctor import _exposed, _network
from chorus.ctl.problems import CtlError
from chorus.ctl.up import Stuck, of_many, too_few_votes, two_meshes, up

LICENCE = "dev-0123456789abcdef"
MODELS = ("CHORUS_AI_PROVIDER", "OLLAMA_ENDPOINT", "OLLAMA_MODEL")
SETTINGS = (
    *MODELS,
    "CHORUS_LICENSE_ID",
    "CHORUS_CLUSTER_SECRET",
    "CHORUS_CLUSTER_SECRET_FILE",
    "CHORUS_CONTEXT",
)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The settings of the agents that `up` starts; none comes up."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    given: list[dict[str, str]] = []

    def start(name: str, folder: Path, settings: Mapping[str, str], *, detached: bool) -> Any:
        given.append(dict(settings))
        raise CtlError("it does not start")

    monkeypatch.setattr(up_module, "start", start)
    return given


def bring_up() -> None:
    with pytest.raises(CtlError, match="it does not start"):
        up(Namespace(context="c", agents=1, detach=True, json=True))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_context_gets_a_random_secret_that_only_its_user_reads(
    tmp_path: Path, started: list[dict[str, str]]
) -> None:
    bring_up()
    folder = tmp_path / "chorus" / "contexts" / "c"
    secret = Path(started[0]["CHORUS_CLUSTER_SECRET_FILE"])
    assert secret.parent == folder
    assert re.fullmatch("[0-9a-f]{64}\n", secret.read_text())
    assert started[0]["CHORUS_ELECTION_JOIN_WAIT"] == "0s"
    licence = started[0]["CHORUS_LICENSE_ID"]
    assert re.fullmatch("dev-c-[0-9a-f]{32}", licence)
    assert licence not in (folder / "context.json").read_text()
    assert json.loads((folder / "context.json").read_text())["license"] == f"development …{licence[-4:]}"
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir() if path.is_file()} == {0o600}
    # Again: the same mesh.
    kept = secret.read_text()
    bring_up()
    assert (started[1]["CHORUS_CLUSTER_SECRET_FILE"], secret.read_text()) == (str(secret), kept)
    assert started[1]["CHORUS_LICENSE_ID"] == licence
    assert "CHORUS_ELECTION_JOIN_WAIT" not in started[1]


@pytest.mark.parametrize(
    ("said", "provider"),
    [
        ({}, "none"),
        ({"OLLAMA_ENDPOINT": "http://127.0.0.1:1"}, "ollama"),
        ({"OLLAMA_MODEL": "m"}, "ollama"),
        ({"OLLAMA_MODEL": "m", "CHORUS_AI_PROVIDER": "none"}, "none"),
        ({"CHORUS_AI_PROVIDER": "resetdata"}, "resetdata"),
    ],
)
def test_without_a_configured_model_the_provider_is_none_and_that_is_said(
    started: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: dict[str, str],
    provider: str,
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    bring_up()
    assert started[0]["CHORUS_AI_PROVIDER"] == provider
    assert ("no model is configured" in capsys.readouterr().err) == (provider == "none")


@pytest.mark.parametrize("name", ["CHORUS_LICENSE_ID", "CHORUS_CLUSTER_SECRET", "CHORUS_CLUSTER_SECRET_FILE"])
def test_what_the_environment_names_is_used_as_it_is(
    tmp_path: Path, started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, LICENCE)
    bring_up()
    assert "CHORUS_CLUSTER_SECRET_FILE" not in started[0]
    assert not (tmp_path / "chorus" / "contexts" / "c" / "cluster-secret").exists()
    if name == "CHORUS_LICENSE_ID":
        assert started[0]["CHORUS_LICENSE_ID"] == LICENCE


def test_a_secret_in_the_environment_comes_before_that_of_the_context(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bring_up()
    monkeypatch.setenv("CHORUS_CLUSTER_SECRET", "x" * 24)
    bring_up()
    assert "CHORUS_CLUSTER_SECRET_FILE" not in started[1]


def test_a_context_of_an_earlier_version_keeps_its_licence_and_becomes_private(
    tmp_path: Path, started: list[dict[str, str]]
) -> None:
    folder = tmp_path / "chorus" / "contexts" / "c"
    folder.mkdir(parents=True)
    for each in (folder, folder.parent):
        each.chmod(0o755)
    file = folder / "context.json"
    file.write_text(json.dumps({"name": "c", "license_id": LICENCE, "agents": []}))
    file.chmod(0o644)
    bring_up()
    assert started[0]["CHORUS_LICENSE_ID"] == LICENCE
    assert "CHORUS_CLUSTER_SECRET_FILE" not in started[0]
    assert [mode(path) for path in (folder, folder.parent, file)] == [0o700, 0o700, 0o600]
    assert LICENCE not in file.read_text()
    bring_up()
    assert started[1]["CHORUS_LICENSE_ID"] == LICENCE


def test_a_context_without_its_licence_file_is_named(tmp_path: Path, started: list[dict[str, str]]) -> None:
    bring_up()
    (tmp_path / "chorus" / "contexts" / "c" / "license-id").unlink()
    with pytest.raises(CtlError, match="license-id"):
        up(Namespace(context="c", agents=1, detach=True, json=True))


def election(mesh: str | None, *others: str) -> dict[str, Any]:
    return {"election": {"mesh": mesh, "other_meshes": list(others)}}


def test_two_meshes_are_named() -> None:
    assert two_meshes({"a": election("m"), "b": election("m"), "c": election(None), "d": {}}) == ""
    apart = two_meshes({"a": election("m"), "b": election("n"), "c": election("m")})
    assert "m (a, c) and n (b)" in apart
    assert "m (a) and n" in two_meshes({"a": election("m", "n")})
    assert "m (a) and n (b)" in two_meshes({"a": election("m", "n"), "b": election("n", "m")})


def agent(name: str, port: int) -> AgentEntry:
    return AgentEntry(name, "http://none", f"http://127.0.0.1:{port}", "/ip4", "t", "d", 0)


def apart(tmp_path: Path, sizes: tuple[int, int]) -> tuple[up_module._Missing, httpx.Client]:
    """Two agents in two meshes with a leader, which list so many members."""
    token = tmp_path / "token"
    token.write_text("t")

    def answer(request: httpx.Request) -> httpx.Response:
        one = request.url.port == 1
        if request.url.path == "/health":
            mesh = election("mesh-one" if one else "mesh-two")
            return httpx.Response(503, json={"checks": [], "warnings": [], **mesh})
        members = [
            {"peer_id": f"p{n}", "agent_id": "x", "voter": True} for n in range(sizes[0 if one else 1])
        ]
        said = {"mesh": "mesh-one" if one else "mesh-two", "leader": "x", "members": members}
        return httpx.Response(200, json=said)

    agents = [
        AgentEntry(f"agent-{n}", f"http://127.0.0.1:{n}", f"http://127.0.0.1:{n}", "/ip4", str(token), "d", 0)
        for n in (1, 2)
    ]
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return up_module._Missing(MeshContext("c", LICENCE, tuple(agents)), http, []), http


def test_two_meshes_of_more_than_one_member_are_named_with_what_to_do(tmp_path: Path) -> None:
    missing, http = apart(tmp_path, (2, 3))
    with http, pytest.raises(Stuck) as told:
        missing.none()
    for word in ("mesh-one (agent-1)", "mesh-two (agent-2)", "members rejoin --context c", "down --purge"):
        assert word in str(told.value)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 1)])
def test_a_mesh_of_one_is_given_time_to_join_the_other(tmp_path: Path, sizes: tuple[int, int]) -> None:
    missing, http = apart(tmp_path, sizes)
    with http:
        assert not missing.none()
        agent = Started("agent-1", tmp_path, tmp_path / "log", None)  # type: ignore[arg-type]
        assert "mesh-one (agent-1) and mesh-two (agent-2)" in missing.explain([agent])


def test_of_two_meshes_without_a_leader_one_may_go_on_in_the_other() -> None:
    members = [{"peer_id": "p1"}, {"peer_id": "p2"}]
    led = {"mesh": "m", "leader": "a", "members": members}
    assert of_many({"a": led, "b": {**led, "mesh": "n"}})
    assert not of_many({"a": led, "b": {**led, "mesh": "n", "leader": None}})
    assert not of_many({"a": led, "b": {"mesh": None, "leader": None, "members": []}})


@pytest.mark.parametrize("detach", [True, False])
def test_agents_that_only_a_person_can_help_go_on_running(
    started: list[dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    detach: bool,
) -> None:
    def stuck(*_: Any, **__: Any) -> MeshContext:
        raise Stuck("chorusctl members recover")

    ended: list[str] = []
    monkeypatch.setattr(up_module, "_bring_up", stuck)
    monkeypatch.setattr(up_module, "_abandon", lambda _: ended.append("abandoned"))
    monkeypatch.setattr(up_module, "_until_interrupted", lambda *_: ended.append("interrupted") or 0)
    arguments = Namespace(context="c", agents=1, detach=detach, json=True)
    if detach:
        with pytest.raises(CtlError, match=r"members recover\. The agents go on running; chorusctl down"):
            up(arguments)
    else:
        assert up(arguments) == 1
        assert "members recover. The agents go on running" in capsys.readouterr().err
    assert ended == ([] if detach else ["interrupted"])


def test_up_waits_for_agents_that_do_not_answer_and_keeps_their_warnings() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.port == 1:
            return httpx.Response(503, json={"status": "starting", "checks": [], "warnings": ["beware"]})
        return httpx.Response(200, json=["no health"])

    context = MeshContext("c", LICENCE, (agent("agent-1", 1), agent("agent-2", 2)))
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        missing = up_module._Missing(context, http, [])
        assert not missing.none()
        assert missing.warnings == {"beware"}


@pytest.mark.parametrize("check", ["clock", "dht", "backbeat", "capacity", "peers", "docker"])
def test_up_waits_for_what_decides_readiness_alone(tmp_path: Path, check: str) -> None:
    (tmp_path / "token").write_text("t")
    mesh = {"leader": "a", "voters": 1, "applied": 1, "committed": 1}
    answers = {
        "/health": {"checks": [{"name": check, "ok": False, "detail": "away"}]},
        "/api/v1/status": {"mesh": mesh},
        "/api/v1/election": {"mesh": "m", "leader": "a", "members": []},
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.path]))
    alone = AgentEntry("a", "http://a", "http://a", "/ip4", str(tmp_path / "token"), "d", 0)
    with httpx.Client(transport=transport) as http:
        missing = up_module._Missing(MeshContext("c", LICENCE, (alone,)), http, [])
        assert missing.none() == (check != "docker")


def test_the_doctor_warns_of_a_licence_that_is_open_to_the_network(
    started: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [finding.ok for finding in _network()] == [True]
    assert "guesses the id" in _exposed({"CHORUS_LICENSE_ID": "dev-1", "CHORUS_P2P_HOST": "0.0.0.0"})
    assert "cluster secret" in _exposed({"CHORUS_P2P_HOST": "0.0.0.0"})
    assert _exposed({"CHORUS_LICENSE_ID": "dev-1"}) == ""
    assert _exposed({"CHORUS_P2P_HOST": "nonsense"}) == ""
    monkeypatch.setenv("CHORUS_P2P_HOST", "0.0.0.0")
    [finding] = _network()
    assert (finding.ok, finding.needed) == (False, False)
    assert LICENCE not in finding.detail


def elections(*said: tuple[str, str | None, str | None]) -> dict[str, dict[str, Any]]:
    """What agents (name, mesh, leader) say of a mesh with the votes of peers 1 to 3."""
    members = [{"peer_id": f"p{n}", "agent_id": f"agent-{n}", "voter": True} for n in (1, 2, 3)]
    members.append({"peer_id": "p4", "agent_id": "agent-4", "voter": False})
    return {
        name: {"mesh": mesh, "leader": leader, "members": members if mesh else []}
        for name, mesh, leader in said
    }


def test_a_mesh_without_a_majority_is_said_at_once_and_who_is_missing() -> None:
    here = {"p1": "agent-1", "p2": "agent-2", "p3": "agent-3"}
    whole = elections(("agent-1", "m", None), ("agent-2", "m", None), ("agent-3", "m", None))
    assert too_few_votes(whole, here) == ""
    one_gone = elections(("agent-1", None, None), ("agent-2", "m", None), ("agent-3", "m", None))
    assert too_few_votes(one_gone, here) == ""
    assert too_few_votes(one_gone, {"new": "agent-1", "p2": "agent-2", "p3": "agent-3"}) == ""
    two_gone = elections(("agent-1", None, None), ("agent-2", None, None), ("agent-3", "m", None))
    why = too_few_votes(two_gone, here)
    assert "1 of its 3 votes" in why
    assert "agent-1 (p1)" in why
    assert "agent-2 (p2)" in why
    assert "agent-3 (" not in why
    # A leader says that there is a majority, wherever it is.
    led = elections(("agent-1", None, None), ("agent-2", None, None), ("agent-3", "m", "agent-9"))
    assert too_few_votes(led, here) == ""
    nobody = elections(("agent-1", None, None), ("agent-2", None, None))
    assert too_few_votes(nobody, here) == ""
