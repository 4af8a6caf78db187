"""The licence id stays in the file of its context, and two meshes with one secret are told apart at once."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .conftest import Mesh, bare_environ

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]


@pytest.fixture(scope="module")
def one(needs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    environ = bare_environ() | {"XDG_STATE_HOME": str(tmp_path_factory.mktemp("one"))}
    mesh = Mesh([], environ, name="one", count=2)
    try:
        mesh.up()
        yield mesh
    finally:
        mesh.down(["--purge"])


def folder_of(mesh: Mesh) -> Path:
    return Path(mesh.environ["XDG_STATE_HOME"]) / "chorus" / "contexts" / mesh.name


def test_the_licence_id_stands_in_one_file_that_only_its_user_reads(one: Mesh) -> None:
    folder = folder_of(one)
    licence = (folder / "license-id").read_text().strip()
    secret = Path(one.cluster_secret_file)
    assert len(bytes.fromhex(secret.read_text().strip())) == 32
    for path, mode in ((folder, 0o700), (folder / "license-id", 0o600), (secret, 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    places = [folder, *(Path(agent.run_dir) for agent in one.agents)]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(files) > 20
    telling = [path for path in files if licence.encode() in path.read_bytes()]
    assert telling == [folder / "license-id"]
    for agent in one.agents:
        pages = [httpx.get(agent.health + path, trust_env=False) for path in ("/health", "/ready")]
        pages += [agent.get("/api/v1/status"), agent.get("/api/v1/log?limit=100"), agent.get("/metrics")]
        for page in pages:
            assert licence not in page.text
        assert pages[0].json()["license"]["id"] == f"development …{licence[-4:]}"


def test_a_second_mesh_with_the_same_secret_ends_up_with_both_names(
    one: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environ = bare_environ() | {
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("two")),
        "CHORUS_CLUSTER_SECRET_FILE": one.cluster_secret_file,
        "CHORUS_MDNS_ENABLED": "false",
    }
    two = Mesh([], environ, name="two", count=1)
    try:
        two.up()  # on its own: nobody tells it of the other
        [agent] = two.agents
        theirs = agent.get("/api/v1/status").json()["mesh"]["id"]
        two.down()
        two.environ["CHORUS_BOOTSTRAP_PEERS"] = one.agents[0].multiaddr
        done = two.ctl("up", "-n", "1", "--detach", check=False)
        assert done.returncode == 1
        mine = one.agents[0].get("/api/v1/status").json()["mesh"]["id"]
        told = done.stderr.decode()
        assert theirs in told
        assert mine in told
        assert "CHORUS_CLUSTER_SECRET" in told
        assert "not complete after" not in told
        log = (folder_of(one) / "agent-1.log").read_text().splitlines()
        [warning] = [said for said in map(json.loads, log) if said["event"] == "two meshes"]
        assert theirs in warning["detail"]
    finally:
        two.down(["--purge"])
