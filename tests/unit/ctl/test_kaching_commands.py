"""`chorusctl dev kaching`: licences, leases, keys and faults of a running server, kept over a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.ctl.cli import main
from chorus.dev.kaching import KachingServer
from chorus.license.keys import read_keys

Command = Callable[..., Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KachingServer]:
    with KachingServer(tmp_path / "kaching") as running:
        yield running


@pytest.fixture
def command(tmp_path: Path, server: KachingServer, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> Any:
        code = main(["dev", "kaching", *words, "--json", "--data", str(tmp_path / "kaching")])
        out, err = capsys.readouterr()
        return json.loads(out) if code == 0 else err

    return run


def test_licences_are_made_listed_and_ruled(command: Command, tmp_path: Path) -> None:
    made = command("license", "create", "prod-1", "--cluster", "shop", "--max-agents", "2", "--lease", "30s")
    assert (made["id"], made["cluster_id"], made["max_agents"], made["lease_ttl_s"]) == (
        "prod-1",
        "shop",
        2,
        30,
    )
    assert "cluster_secret" not in made
    assert "already" in command("license", "create", "prod-1")
    for verb, state in (("suspend", "suspended"), ("resume", "active"), ("revoke", "revoked")):
        assert command("license", verb, "prod-1")["state"] == state
    assert "revoked" in command("license", "resume", "prod-1")
    assert "does not know the licence" in command("license", "suspend", "prod-2")
    assert "lease_ttl_s" in command("license", "create", "prod-3", "--lease", "1ms")
    assert [licence["id"] for licence in command("license", "list")["items"]] == ["prod-1"]
    assert command("lease", "list")["items"] == []
    assert (tmp_path / "kaching" / "state.json").stat().st_mode & 0o777 == 0o600


def test_the_next_key_is_pinned_before_it_signs(command: Command) -> None:
    first = read_keys(command("key", "show")["public_key"])
    then = read_keys(command("key", "rotate")["public_key"])
    assert len(first) == len(then) == 2
    assert then[0] == first[1]
    assert then[1] not in first


def test_faults_on_command(command: Command, server: KachingServer) -> None:
    said = command("fault", "error", "--status", "503", "--times", "1")
    assert (said["fault"], said["status"]) == ("error", 503)
    asked = [httpx.post(f"{server.url}/api/v1/leases/x/renew", json={}).status_code for _ in range(2)]
    assert asked == [503, 400]
    assert command("fault", "lying", "--claims", '{"max_agents": null}')["claims"] == {"max_agents": None}
    assert "--claims" in command("fault", "lying", "--claims", "{")
    assert command("fault", "none")["fault"] == "none"


@pytest.mark.parametrize("token", [None, "Bearer x", "Basic eDp4"])
def test_only_who_has_the_servers_token_rules_it(server: KachingServer, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": token}
    for method, path in (("GET", "licenses"), ("PUT", "fault"), ("POST", "key/rotate"), ("GET", "nothing")):
        assert httpx.request(method, f"{server.url}/admin/{path}", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/licenses/validate", b"{", 400),
        ("POST", "/api/v1/licenses/validate", b"[]", 400),
        ("POST", "/api/v1/licenses/validate", b'{"license_id": 3}', 400),
        ("GET", "/api/v1/licenses/validate", b"", 404),
        ("GET", "/", b"", 404),
        ("POST", "/api/v1/licenses/validate", b"x" * 100_000, 400),
    ],
)
def test_what_is_no_question_is_refused(
    server: KachingServer, method: str, path: str, body: bytes, status: int
) -> None:
    answer = httpx.request(method, server.url + path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["detail"]


def test_its_state_outlives_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--json", "--data", str(tmp_path)]
    with KachingServer(tmp_path) as server:
        keys = server.public_keys
        assert main(["dev", "kaching", "license", "create", "prod-1", *words]) == 0
    capsys.readouterr()
    assert main(["dev", "kaching", "license", "list", *words]) == 1
    assert "start it again" in capsys.readouterr().err
    with KachingServer(tmp_path) as server:
        assert server.public_keys == keys
        assert main(["dev", "kaching", "license", "list", *words]) == 0
    assert "prod-1" in capsys.readouterr().out


def test_without_a_server_it_says_how_to_start_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dev", "kaching", "key", "show", "--data", str(tmp_path)]) == 1
    assert "start one with chorusctl dev kaching" in capsys.readouterr().err
