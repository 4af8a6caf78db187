"""The start-up sequence up to the first process: each refusal in the contract's words, and nothing left
behind.
"""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import socketserver
import threading
from pathlib import Path

import pytest

from chorus.agent import folders
from chorus.agent.docker_check import docker_problem
from chorus.agent.ports import reserve
from chorus.agent.problems import StartupError
from chorus.agent.startup import Prepared, prepare
from chorus.blobs import BlobStore
from chorus.config import load_run_settings

# An age identity and its recipient, made for these tests.
_IDENTITY = "AGE-SECRET-KEY-1HDJ0ST3DKHD69GQDT97DMD25HGT0ZXGU5RU5TZJMDNLKWNWWV3HSGFYUTU"
_RECIPIENT = "age1wklg9cr3ftasf0kncdzsvjyjzntlsd6hz7mqf68w4rm6q7yj5ftq5hvksu"
KEYS = f"# role: member\n{_IDENTITY}\n{_RECIPIENT}\n# role: admin\n{_RECIPIENT}\n"
PEER_ID = "12D3KooWGzBRs9LvWwmTeXv3fWEWJm4nJ3Yz6oSfLFZYhxCnFV1x"


def environ(short_dir: Path, docker: str, **more: str) -> dict[str, str]:
    return {
        "CHORUS_LICENSE_ID": "dev-1",
        "CHORUS_DATA_DIR": str(short_dir / "data"),
        "CHORUS_RUN_DIR": str(short_dir / "run"),
        "CHORUS_P2P_PORT": "0",
        "CHORUS_API_PORT": "0",
        "CHORUS_HEALTH_PORT": "0",
        "DOCKER_HOST": docker,
        **more,
    }


def start(values: dict[str, str]) -> Prepared:
    return prepare(values, lambda path: PEER_ID)


def refusal(values: dict[str, str]) -> list[str]:
    with pytest.raises(StartupError) as caught:
        start(values)
    return list(caught.value.lines)


def test_a_start_completes_the_settings(short_dir: Path, docker_that_pings: str) -> None:
    prepared = start(environ(short_dir, docker_that_pings))
    settings = prepared.settings
    assert settings.peer_id == PEER_ID
    assert settings.agent_id == "agent-" + PEER_ID[-8:]
    assert len({settings.p2p_port, settings.api_port, settings.health_port, 0}) == 4
    assert settings.api_token.get_secret_value() == (short_dir / "data/api-token").read_text().strip()
    assert (short_dir / "data/api-token").stat().st_mode & 0o777 == 0o600
    assert (short_dir / "run").stat().st_mode & 0o777 == 0o700
    assert load_run_settings(short_dir / "run") == settings
    prepared.close()
    assert not (short_dir / "run").exists()


def test_the_token_and_the_named_agent_stay(short_dir: Path, docker_that_pings: str) -> None:
    values = environ(short_dir, docker_that_pings, CHORUS_AGENT_ID="chorus-agent-1")
    tokens = set()
    for _ in range(2):
        prepared = start(values)
        tokens.add(prepared.settings.api_token.get_secret_value())
        assert prepared.settings.agent_id == "chorus-agent-1"
        prepared.close()
    assert len(tokens) == 1


def test_licence_and_settings_are_refused_together(short_dir: Path) -> None:
    lines = refusal(
        environ(short_dir, "unix:///none", CHORUS_LICENSE_ID="", CHORUS_API_PORT="x", CHORUS_VOTERS="x")
    )
    assert lines[0].startswith("❌ Failed to initialize CHORUS agent: license validation failed: ")
    assert [line.split(": ")[1] for line in lines[1:]] == ["CHORUS_API_PORT", "CHORUS_VOTERS"]
    assert not (short_dir / "data").exists()


def test_without_docker(short_dir: Path) -> None:
    [line] = refusal(environ(short_dir, f"unix://{short_dir}/docker.sock"))
    assert line.startswith("❌ Failed to create P2P node: failed to create Docker client: ")
    assert "DOCKER_HOST" in line
    assert not (short_dir / "data").exists()


@pytest.mark.parametrize(
    ("contained", "remedy"),
    [
        (False, "Start the Docker daemon, mount /var/run/docker.sock or set DOCKER_HOST"),
        (True, "docker run -v"),
    ],
)
def test_a_socket_that_is_not_there(short_dir: Path, contained: bool, remedy: str) -> None:
    why = docker_problem(f"unix://{short_dir}/docker.sock", {}, contained=contained)
    assert "No such file or directory" in why
    assert remedy in why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use any socket")
@pytest.mark.parametrize(("contained", "remedy"), [(False, "group"), (True, "--group-add")])
def test_a_socket_that_may_not_be_used(docker_that_pings: str, contained: bool, remedy: str) -> None:
    socket_file = Path(docker_that_pings.removeprefix("unix://"))
    socket_file.chmod(0)
    why = docker_problem(docker_that_pings, {}, contained=contained)
    assert f"{remedy} {socket_file.stat().st_gid}" in why


@pytest.mark.parametrize("contained", [False, True])
def test_nobody_at_an_address(contained: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    why = docker_problem(host, {}, contained=contained)
    assert why.startswith(f"{host}: Connection refused. Start the Docker daemon or the proxy there, ")
    assert ("this container" in why) is contained


def test_tls_without_its_certificates(short_dir: Path) -> None:
    (short_dir / "cert.pem").touch()
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(short_dir)}
    assert "DOCKER_CERT_PATH" in docker_problem("tcp://127.0.0.1:1", environ)


def test_a_proxy_that_refuses(short_dir: Path) -> None:
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            return

    with socketserver.TCPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        why = docker_problem(f"tcp://127.0.0.1:{server.server_address[1]}", {})
    assert "403" in why
    assert "proxy" in why


@pytest.mark.parametrize("variable", ["CHORUS_P2P_PORT", "CHORUS_API_PORT", "CHORUS_HEALTH_PORT"])
def test_a_port_that_is_taken(short_dir: Path, docker_that_pings: str, variable: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        [line] = refusal(environ(short_dir, docker_that_pings, **{variable: str(port)}))
    assert line.startswith("❌ Failed to initialize: bind: address already in use: ")
    assert str(port) in line
    assert variable in line


def test_a_reserved_port_can_be_served_and_is_not_given_to_others() -> None:
    kept = reserve("CHORUS_API_PORT", ("127.0.0.1",), 0)
    others = [reserve("CHORUS_API_PORT", ("127.0.0.1",), 0) for _ in range(50)]
    assert kept.port not in {other.port for other in others}
    with socket.create_server(("127.0.0.1", kept.port)), socket.create_connection(("127.0.0.1", kept.port)):
        pass
    with socket.create_server(("127.0.0.1", kept.port)):
        pass
    for each in (kept, *others):
        each.close()


def test_addresses_nobody_chose_may_be_missing() -> None:
    got = reserve("CHORUS_P2P_PORT", ("127.0.0.1", "2001:db8::1"), 0, skip_missing=True)
    assert got.hosts == ("127.0.0.1",)
    got.close()
    with pytest.raises(StartupError, match="CHORUS_P2P_PORT"):
        reserve("CHORUS_P2P_PORT", ("127.0.0.1", "2001:db8::1"), 0)


def test_a_data_directory_in_use(short_dir: Path, docker_that_pings: str) -> None:
    first = start(environ(short_dir, docker_that_pings))
    [line] = refusal(environ(short_dir, docker_that_pings, CHORUS_RUN_DIR=str(short_dir / "run2")))
    assert "in use by a living agent" in line
    assert str(short_dir / "data") in line
    first.close()
    start(environ(short_dir, docker_that_pings)).close()


def test_half_received_blobs_of_an_earlier_life_are_removed(short_dir: Path, docker_that_pings: str) -> None:
    values = environ(short_dir, docker_that_pings)
    prepared = start(values)
    store = BlobStore(prepared.settings.paths.blobs)
    kept = asyncio.run(store.put_bytes(b"whole"))
    prepared.close()
    half = store.folder / "new" / "half"
    half.write_bytes(b"ha")
    start(values).close()
    assert (half.exists(), store.has(kept.sha256)) == (False, True)


def test_a_run_directory_in_use_is_left_alone(short_dir: Path, docker_that_pings: str) -> None:
    first = start(environ(short_dir, docker_that_pings))
    [line] = refusal(environ(short_dir, docker_that_pings, CHORUS_DATA_DIR=str(short_dir / "data2")))
    assert "CHORUS_RUN_DIR" in line
    assert load_run_settings(short_dir / "run") == first.settings
    first.close()


def test_a_run_directory_that_others_can_read_is_refused(short_dir: Path, docker_that_pings: str) -> None:
    (short_dir / "run").mkdir(mode=0o755)
    (short_dir / "run" / "theirs").touch()
    [line] = refusal(environ(short_dir, docker_that_pings))
    assert "0700" in line
    assert (short_dir / "run" / "theirs").exists()


def test_only_the_agents_own_files_are_cleared(short_dir: Path, docker_that_pings: str) -> None:
    (short_dir / "run").mkdir(mode=0o700)
    (short_dir / "run" / "theirs").touch()
    (short_dir / "run" / "crashes.json").write_text("{}")
    prepared = start(environ(short_dir, docker_that_pings))
    assert not prepared.settings.paths.crashes_json.exists()
    prepared.close()
    assert (short_dir / "run" / "theirs").exists()


def test_an_assignment_comes_before_the_environment(short_dir: Path, docker_that_pings: str) -> None:
    document = short_dir / "one.json"
    document.write_text('{"agent_id": "assigned", "role": "reviewer", "join_stagger_ms": 5000}')
    values = environ(short_dir, docker_that_pings, ASSIGN_URL=document.as_uri(), CHORUS_AGENT_MAX_TASKS="7")
    values["CHORUS_AGENT_ROLE"] = "tester"
    prepared = start(values)
    settings = prepared.settings
    assert settings.agent_id == "assigned"
    assert (settings.assignment.role, settings.assignment.max_tasks) == ("reviewer", 7)
    assert (prepared.assigned.environment.role, prepared.assigned.stagger_s) == ("tester", 5.0)
    assert settings.data_dir == short_dir / "data"
    assert load_run_settings(short_dir / "run") == settings
    prepared.close()
    # The last good copy counts while there is nothing to be had.
    document.unlink()
    prepared = start({**values, "CHORUS_AGENT_ID": "named"})
    assert prepared.settings.agent_id == "named"
    assert prepared.settings.assignment.role == "reviewer"
    assert prepared.assigned.first is not None
    assert prepared.assigned.first.source == "copy"
    prepared.close()
    (short_dir / "data" / "assigned.json").unlink()
    prepared = start(values)
    assert prepared.settings.assignment.role == "tester"
    assert prepared.assigned.stagger_s == 0
    prepared.close()


def test_a_role_without_a_key_is_refused_with_the_document(short_dir: Path, docker_that_pings: str) -> None:
    keys, document = short_dir / "keys", short_dir / "one.json"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    document.write_text('{"role": "reviewer", "max_tasks": 1}')
    values = environ(
        short_dir, docker_that_pings, ASSIGN_URL=document.as_uri(), CHORUS_ROLE_KEYS_FILE=str(keys)
    )
    prepared = start(values)
    assert prepared.settings.assignment.max_tasks == 3
    assert prepared.assigned.first is not None
    [problem] = prepared.assigned.first.refused
    assert "role: " in problem
    assert "no identity for role reviewer" in problem
    prepared.close()


def test_a_broken_identity_names_the_file(short_dir: Path, docker_that_pings: str) -> None:
    def broken(path: Path) -> str:
        raise StartupError(f"identity key {path}: not a key")

    with pytest.raises(StartupError, match=r"identity\.key"):
        prepare(environ(short_dir, docker_that_pings), broken)
    folders.open_data_dir(short_dir / "data").close()
