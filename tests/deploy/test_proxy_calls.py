"""The calls that the filtering proxy takes: those of sandboxes, in the one form in which agents write them.

Each attempt at another is refused, named in the log, and never reaches the daemon.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from urllib.parse import quote

import pytest

from chorus.agent.docker_check import docker_problem
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.container import SECCOMP
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL

from .conftest import LEASE_S, PREFIX, SANDBOX, docker, proxy_words, published, until_answered
from .sandbox_bodies import limits
from .watched import Watched, ask

pytestmark = pytest.mark.deploy

# Nobody is asked for this one; whatever passes the proxy finds nothing.
NOBODY = "0" * 64
V = "/v1.41"
CREATE = f"{V}/containers/create"
OURS = quote(json.dumps({"label": ["chorus.peer=x"]}))


async def test_a_normal_sandbox_passes(watched: Watched) -> None:
    """From its image to its removal, as the executor does it."""
    backend = DockerBackend(
        Engine(watched.host), peer=f"p{uuid.uuid4().hex}", boot="b", default=SMALL, warm=0, lease_s=LEASE_S
    )
    try:
        assert (await backend.state()).ok
        await backend.ensure_image(SANDBOX)
        sandbox = await backend.acquire(SANDBOX, SMALL, LEASE_S)
        host = json.loads(await asyncio.to_thread(docker, "inspect", sandbox.container))[0]["HostConfig"]
        assert (host["Privileged"], host["NetworkMode"], host["ReadonlyRootfs"]) == (False, "none", True)
        assert not any(host[name] for name in ("Binds", "Devices", "CapAdd", "PidMode", "UsernsMode"))
        assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={SECCOMP}"]
        await backend._engine.update(sandbox.container, limits())
        await backend._engine.rename(sandbox.container, f"{PREFIX}-renamed")
        await sandbox.close()
        assert await backend.sweep() == []
    finally:
        await backend.sweep()
        await backend.close()


NO_CALL = [
    ("GET", "/info"),
    ("GET", f"{V}/events"),
    ("GET", f"{V}/containers/json"),
    ("GET", f"{V}/containers/json?all=1"),
    ("GET", f"{V}/containers/json?all=1&filters=%7B%7D"),
    ("GET", f"{V}/containers/json?filters=%7B%7D&filters={OURS}"),
    ("GET", f"{V}/containers/json?filters={OURS}&filters=%7B%7D"),
    ("GET", f"{V}/containers/json?%66ilters=%7B%7D&filters={OURS}"),
    ("GET", f"{V}/containers/json?filters={quote(json.dumps({'label': ['chorus.peer']}))}"),
    ("GET", f"{V}/containers/json?filters={quote(json.dumps({'label': ['chorus.peer=']}))}"),
    ("GET", f"{V}/containers/json?filters={quote(json.dumps({'label': {'chorus.peer=x': False}}))}"),
    ("GET", f"{V}/containers/{NOBODY[:12]}/json"),
    ("GET", f"{V}/containers/some-name/json"),
    ("GET", f"{V}/containers/{NOBODY}/json?size=1"),
    ("GET", f"{V}/containers/{NOBODY}/logs?stdout=1"),
    ("GET", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("HEAD", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("PUT", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("GET", f"{V}/containers/{NOBODY}/export"),
    ("GET", f"{V}/containers/{NOBODY}/changes"),
    ("GET", f"{V}/containers/{NOBODY}/top"),
    ("GET", f"{V}/containers/{NOBODY}/attach/ws?stream=1"),
    ("POST", f"{V}/containers/{NOBODY}/attach?stream=1&stdin=1"),
    ("POST", f"{V}/containers/{NOBODY}/stop"),
    ("POST", f"{V}/containers/{NOBODY}/wait"),
    ("POST", f"{V}/containers/{NOBODY}/copy"),
    ("POST", f"{V}/containers/{NOBODY}/start?checkpoint=x"),
    ("POST", f"{V}/containers/{NOBODY}/kill?signal=9"),
    ("POST", f"{V}/containers/{NOBODY}/checkpoints"),
    ("POST", f"{V}/containers/some-name/start"),
    ("POST", f"{V}/containers/some-name/kill"),
    ("POST", f"{V}/containers/prune"),
    ("DELETE", f"{V}/containers/some-name"),
    ("DELETE", f"{V}/containers/{NOBODY}?link=True"),
    # `start` took settings of its own before 1.24.
    ("POST", f"/v1.23/containers/{NOBODY}/start"),
    ("POST", f"/v1.40/containers/{NOBODY}/start"),
    ("POST", f"/v1.4100/containers/{NOBODY}/start"),
    ("POST", f"/containers/{NOBODY}/start"),
    ("POST", f"/v2.41/containers/{NOBODY}/start"),
    ("POST", f"{V}/exec/{NOBODY}/resize?h=1&w=1"),
    ("GET", f"{V}/images/json"),
    ("GET", f"{V}/images/../containers/json"),
    ("GET", f"{V}/images/x/../../containers/json"),
    ("GET", f"{V}/images/x/history"),
    ("GET", f"{V}/images/x/get"),
    ("DELETE", f"{V}/images/x"),
    ("POST", f"{V}/images/load"),
    ("POST", f"{V}/images/create?fromSrc=http://example.com/x.tar&repo=x"),
    ("POST", f"{V}/images/create?fromImage=x"),
    ("POST", f"{V}/images/create?tag=latest&fromImage=x&fromSrc=-"),
    ("POST", f"{V}/images/create?tag=latest&fromImage=x&platform=y"),
    ("POST", f"{V}/images/x/push"),
    ("POST", f"{V}/images/x/tag?repo=y"),
    ("POST", f"{V}/build"),
    ("POST", f"{V}/commit?container={NOBODY}"),
    ("POST", f"{V}/session"),
    ("POST", "/grpc"),
    ("GET", f"{V}/volumes"),
    ("POST", f"{V}/volumes/create"),
    ("GET", f"{V}/networks"),
    ("POST", f"{V}/networks/create"),
    ("GET", f"{V}/swarm"),
    ("POST", f"{V}/swarm/init"),
    ("GET", f"{V}/services"),
    ("GET", f"{V}/secrets"),
    ("GET", f"{V}/plugins"),
    ("POST", f"{V}/auth"),
    ("GET", f"{V}/system/df"),
    ("GET", "/judged"),
    ("POST", "/attach"),
    # The proxy's own way to ask the daemon.
    ("GET", "/daemon/info"),
    ("GET", "/%64aemon/info"),
    # What a router may take for another path.
    ("GET", f"{V}/images/%2e%2e/containers/json"),
    ("GET", f"{V}/images/..%2fcontainers/json"),
    ("GET", f"/{V}/containers/json"),
    ("GET", f"/{V}/info"),
    ("GET", f"{V}/./info"),
    ("GET", f"{V}/_ping/../info"),
    ("GET", f"{V}/_ping;/../info"),
    ("GET", f"{V}/_ping#/../info"),
    ("GET", f"{V}/%5fping"),
    ("GET", f"{V}/_ping/"),
    ("GET", f"{V}/_ping?x=1"),
    ("GET", f"{V}/_ping%0d%0a"),
    ("GET", f"{V}/containers/create/../json"),
    ("POST", f"{V}/containers/{NOBODY}%2fstart"),
    ("POST", f"{V}/containers/{NOBODY}/start/"),
    ("POST", f"{V}/containers/{NOBODY}/rename?name=x&name=y"),
    ("POST", f"{V}/containers/{NOBODY}/rename?name=x%26y=z"),
    ("POST", f"{V}/containers/{NOBODY}/rename?name=x;y=z"),
    ("POST", f"{CREATE}?name=a/b"),
    ("POST", f"{CREATE}?name="),
    ("POST", f"{CREATE}?name=x&platform=y"),
    ("POST", f"{CREATE}?name=x&name=y"),
    ("POST", f"{CREATE}?Name=x"),
    ("POST", f"{CREATE}?platform=y"),
    ("post", f"{V}/containers/{NOBODY}/start"),
    ("PATCH", f"{V}/containers/{NOBODY}/start"),
]


@pytest.mark.parametrize(("method", "path"), NO_CALL)
def test_calls_that_no_agent_makes(watched: Watched, method: str, path: str) -> None:
    if method.isupper():
        watched.refuses(lambda: watched.ask(method, path), "no such call", path, method)
    else:
        watched.refuses(lambda: watched.ask(method, path), "not well-formed")


def test_a_daemon_that_is_gone_is_told_in_its_own_form(proxy_image: str) -> None:
    name = f"{PREFIX}-lonely"
    docker(*proxy_words(proxy_image, name, "2375", socket=None))
    try:
        port = published(name, 2375)
        until_answered(port)
        for path in ("/version", f"{V}/containers/{NOBODY}/json"):
            answer = ask(port, "GET", path)
            said = json.loads(answer.text)["message"]
            assert (answer.status, said) == (503, "the Docker daemon behind the proxy does not answer")
        assert "503" in docker_problem(f"tcp://127.0.0.1:{port}", {})
        assert "refused" not in docker("logs", name, check=False).replace("Connection refused", "")
    finally:
        docker("rm", "-f", name)
