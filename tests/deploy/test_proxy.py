"""The filtering proxy: everything a sandbox needs passes, and nothing else does."""

from __future__ import annotations

import asyncio
import copy
import http.client
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio

from chorus.agent.docker_check import docker_problem
from chorus.executor.backend import ImageUnavailable, Limits, Sandbox
from chorus.executor.docker.backend import DockerBackend
from chorus.executor.docker.container import (
    SECCOMP,
    USER,
    configuration,
    resource_limits,
    session_command,
)
from chorus.executor.docker.engine import Engine
from chorus.testing.sandbox_contract import SMALL, SandboxContract

from .conftest import LEASE_S, PREFIX, SANDBOX, Images, docker, proxy_words, published

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

Acquire = Callable[[Limits], Awaitable[Sandbox]]
# Nobody is asked for this one; whatever passes the proxy finds nothing.
NOBODY = "0" * 64
V = "/v1.41"
OURS = quote(json.dumps({"label": ["chorus.peer=x"]}))


class TestPlain(SandboxContract):
    """The whole contract of a sandbox, through the proxy."""

    @pytest_asyncio.fixture
    async def acquire(self, plain_acquire: Acquire) -> Acquire:
        return plain_acquire


def ask(host: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """One request as it is written here; returns status and the daemon's or the proxy's message."""
    connection = http.client.HTTPConnection(urlsplit(host).netloc, timeout=60)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    if data is not None:
        headers = {"Content-Type": "application/json", **headers}
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    connection.close()
    return answer.status, text


def refused(host: str, method: str, path: str, body: Any = None, **headers: str) -> bool:
    """Whether it was the proxy that refused."""
    status, text = ask(host, method, path, body, **headers)
    return status == 403 and "refused by the proxy" in text


@pytest_asyncio.fixture
async def backend(proxy: str) -> AsyncIterator[DockerBackend]:
    made = DockerBackend(
        Engine(proxy), peer=f"p{uuid.uuid4().hex}", boot="b", default=SMALL, warm=1, lease_s=LEASE_S
    )
    yield made
    await made.forget_warm()
    await made.sweep()
    await made.close()


async def test_what_the_executor_asks_besides(backend: DockerBackend, proxy: str) -> None:
    assert (await backend.state()).ok
    assert docker_problem(proxy, {}) == ""
    assert (await backend.ensure_image(SANDBOX))[0].startswith("sha256:")
    # The daemon's own words: the pull went through, and the image is nowhere.
    with pytest.raises(ImageUnavailable, match="could not be pulled") as caught:
        await backend.ensure_image("localhost:1/chorus/nowhere:v1.2")
    assert "refused by the proxy" not in caught.value.reason
    assert not await backend.has_image("localhost:1/chorus/nowhere@sha256:" + NOBODY)
    sandbox = await backend.acquire(SANDBOX, SMALL, LEASE_S, {"chorus.task": "t1"})
    name = f"{PREFIX}-named"
    await sandbox.begin({"name": name}, {}, _Nothing())
    async with asyncio.timeout(60):
        async for sample in sandbox.samples():
            assert sample.memory_bytes > 0
            break
        await asyncio.gather(*sandbox._background)
    assert docker("inspect", "--format", "{{.Name}}", sandbox.container) == f"/{name}"
    assert (await backend._engine.inspect_exec(sandbox._exec_id))["Running"]
    await backend._engine.update(sandbox.container, resource_limits(SMALL))
    await backend._engine.kill(sandbox.container)
    backend._live.discard(sandbox.container)
    # As after a crash: found by its label and removed.
    assert await backend.sweep() == ["t1"]


class _Nothing:
    def write(self, stream: str, command: int, data: bytes) -> None:
        return

    def end(self, command: int) -> None:
        return


REFUSED_CALLS = [
    ("GET", "/info"),
    ("GET", f"{V}/events"),
    ("GET", f"{V}/containers/json"),
    ("GET", f"{V}/containers/json?all=1"),
    ("GET", f"{V}/containers/json?all=1&filters=%7B%7D"),
    ("GET", f"{V}/containers/json?filters=%7B%7D&filters={OURS}"),
    ("GET", f"{V}/containers/json?%66ilters=%7B%7D&filters={OURS}"),
    ("GET", f"{V}/containers/json?filters={quote(json.dumps({'label': ['chorus.peer']}))}"),
    ("GET", f"{V}/containers/{NOBODY[:12]}/json"),
    ("GET", f"{V}/containers/some-name/json"),
    ("GET", f"{V}/containers/{NOBODY}/logs?stdout=1"),
    ("GET", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("HEAD", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("PUT", f"{V}/containers/{NOBODY}/archive?path=/etc"),
    ("GET", f"{V}/containers/{NOBODY}/export"),
    ("GET", f"{V}/containers/{NOBODY}/top"),
    ("POST", f"{V}/containers/{NOBODY}/attach?stream=1&stdin=1"),
    ("POST", f"{V}/containers/{NOBODY}/stop"),
    ("POST", f"{V}/containers/{NOBODY}/copy"),
    ("POST", f"{V}/containers/some-name/start"),
    ("POST", f"{V}/containers/some-name/kill"),
    ("POST", f"{V}/containers/prune"),
    ("DELETE", f"{V}/containers/some-name"),
    # `start` took settings of its own before 1.24.
    ("POST", f"/v1.23/containers/{NOBODY}/start"),
    ("POST", f"/containers/{NOBODY}/start"),
    ("GET", f"{V}/images/json"),
    ("GET", f"{V}/images/../containers/json"),
    ("GET", f"{V}/images/x/../../containers/json"),
    ("GET", f"{V}/images/%2e%2e/containers/json"),
    ("DELETE", f"{V}/images/x"),
    ("POST", f"{V}/images/load"),
    ("POST", f"{V}/images/create?fromSrc=http://example.com/x.tar&repo=x"),
    ("POST", f"{V}/images/create?fromImage=x&fromSrc=-"),
    ("POST", f"{V}/images/x/push"),
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
    ("GET", f"//{V}/containers/json"),
    ("GET", f"{V}/containers/create/../json"),
]


@pytest.mark.parametrize(("method", "path"), REFUSED_CALLS)
def test_calls_that_no_agent_makes(proxy: str, method: str, path: str) -> None:
    status, text = ask(proxy, method, path)
    assert status == 403
    assert method == "HEAD" or "refused by the proxy" in text


def test_a_body_where_none_belongs(proxy: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert refused(proxy, "POST", f"{V}/images/create?fromImage=x", b"fromSrc=-", **form)
    assert refused(proxy, "POST", f"{V}/containers/{NOBODY}/start", {"Privileged": True})


def test_a_verdict_is_not_taken_from_outside(proxy: str) -> None:
    verdict = {"X-Verdict": "ok"}
    assert refused(proxy, "POST", f"{V}/containers/create", {"Image": SANDBOX}, **verdict)
    assert refused(proxy, "GET", f"{V}/info", **verdict)


# ---- bodies ----------------------------------------------------------------------------------------


def sandbox() -> dict[str, Any]:
    labels = {"chorus.peer": PREFIX, "chorus.boot": "b", "chorus.task": ""}
    return copy.deepcopy(configuration(SANDBOX, SMALL, labels))


def profile(text: str) -> list[str]:
    return ["no-new-privileges", f"seccomp={text}"]


def with_host(**more: Any) -> bytes:
    config = sandbox()
    config["HostConfig"].update(more)
    return json.dumps(config).encode()


def without_host(name: str) -> bytes:
    config = sandbox()
    del config["HostConfig"][name]
    return json.dumps(config).encode()


def with_text(before: str, after: str) -> bytes:
    text = json.dumps(sandbox())
    assert before in text
    return text.replace(before, after, 1).encode()


def hidden_host() -> bytes:
    """The walls stand in an object that the daemon does not look at."""
    config = sandbox()
    config["Healthcheck"]["HostConfig"] = config.pop("HostConfig")
    return json.dumps(config).encode()


def quoted_host() -> bytes:
    """The walls stand in a string."""
    config = sandbox()
    config["Env"].append(json.dumps({"HostConfig": config.pop("HostConfig")}))
    return json.dumps(config).encode()


BAD_BODIES = {
    "privileged": with_host(Privileged=True),
    "privileged in another case": with_text('"HostConfig": {', '"HostConfig": {"privileged": true, '),
    "privileged with an escape": with_text('"HostConfig": {', '"HostConfig": {"Privileg\\u0065d": true, '),
    "privileged said twice": with_text('"Privileged": false', '"Privileged": false, "Privileged": true'),
    "privileged over a line": with_text('"Privileged": false', '"Privileged"\n:\n true'),
    "a bind": with_host(Binds=["/:/host"]),
    "no binds": with_host(Binds=[]),
    "a mount": with_host(Mounts=[{"Type": "bind", "Source": "/", "Target": "/host"}]),
    "volumes of another": with_host(VolumesFrom=["x"]),
    "a volume": with_text('"Tty": false', '"Tty": false, "Volumes": {"/x": {}}'),
    "a device": with_host(Devices=[{"PathOnHost": "/dev/sda"}]),
    "a capability": with_host(CapAdd=["SYS_ADMIN"]),
    "only some capabilities dropped": with_host(CapDrop=["NET_RAW"]),
    "the host's network": with_host(NetworkMode="host"),
    "a network": with_text('"Tty": false', '"Tty": false, "NetworkingConfig": {}'),
    "another setting of the kernel": with_host(Sysctls={"net.ipv4.ip_forward": "1"}),
    "the host's processes": with_host(PidMode="host"),
    "the host's memory": with_host(IpcMode="host"),
    "another's memory": with_host(IpcMode="container:x"),
    "the host's users": with_host(UsernsMode="host"),
    "no seccomp": with_host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
    "the daemon's own seccomp": with_host(SecurityOpt=["no-new-privileges"]),
    "new privileges": with_host(SecurityOpt=[f"seccomp={SECCOMP}"]),
    "a profile that allows more": with_host(
        SecurityOpt=profile(SECCOMP.replace('"accept",', '"accept","mount",'))
    ),
    "a profile that allows all": with_host(SecurityOpt=profile('{"defaultAction":"SCMP_ACT_ALLOW"}')),
    "a profile that begins alike": with_host(SecurityOpt=profile(SECCOMP + " ")),
    "a profile with an escape": with_text("seccomp=", "seccomp=\\u0020"),
    "no profile after the profile": with_host(SecurityOpt=[*profile(SECCOMP), "seccomp=unconfined"]),
    "no profile before the profile": with_host(SecurityOpt=["seccomp=unconfined", *profile(SECCOMP)]),
    "another option beside the profile": with_host(SecurityOpt=[*profile(SECCOMP), "apparmor=unconfined"]),
    "another profile said after it": with_text(
        '"Privileged": false', f'"SecurityOpt": {json.dumps(profile("{}"))}, "Privileged": false'
    ),
    "another profile in a second HostConfig": json.dumps(sandbox()).encode()[:-1]
    + b', "HostConfig": {"SecurityOpt": null}}',
    "an init of the daemon's": with_host(Init=True),
    "another runtime": with_host(Runtime="x"),
    "a group of its own": with_host(CgroupParent="/x"),
    "kernel settings": with_host(Sysctls={"a": "b"}),
    "a restart": with_host(RestartPolicy={"Name": "always"}),
    "a log elsewhere": with_host(LogConfig={"Type": "syslog", "Config": {}}),
    "a log with options": with_host(LogConfig={"Type": "none", "Config": {"a": "b"}}),
    "a health check": with_text('["NONE"]', '["CMD", "x"]'),
    "root": with_text(USER, "0:0"),
    "no user": with_text('"User": "1000:1000", ', ""),
    "a port": with_host(PortBindings={"80/tcp": [{"HostPort": "80"}]}),
    "no network mode": without_host("NetworkMode"),
    "no capabilities dropped": without_host("CapDrop"),
    "no security options": without_host("SecurityOpt"),
    "a root to write": without_host("ReadonlyRootfs"),
    "no walls": json.dumps({**sandbox(), "HostConfig": {}}).encode(),
    "walls taken back": json.dumps(sandbox()).encode()[:-1] + b', "HostConfig": null}',
    "walls in a place that nobody looks at": hidden_host(),
    "walls in a string": quoted_host(),
    "nothing": b"{}",
    "no object": b"[]",
    "two": b"{}" + json.dumps(sandbox()).encode(),
    "too much of backslashes": b'{"Image": "' + b"\\" * 50_000 + b'"}',
    "too much of quotes": b'{"Image": ' + b'"' * 50_000,
}


def test_a_name_and_nothing_else_beside_a_sandbox(proxy: str) -> None:
    for query in ("name=a/b", "name=", "name=x&platform=y", "platform=y"):
        assert refused(proxy, "POST", f"{V}/containers/create?{query}", sandbox())


@pytest.mark.parametrize("what", BAD_BODIES)
def test_sandboxes_that_no_agent_makes(proxy: str, what: str) -> None:
    assert refused(proxy, "POST", f"{V}/containers/create", BAD_BODIES[what])


def test_a_body_that_is_too_large_to_be_judged(proxy: str) -> None:
    status, text = ask(proxy, "POST", f"{V}/containers/create", with_host() + b" " * 70_000)
    assert (status, "too large" in text) == (413, True)


def test_a_body_of_unknown_length(proxy: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(proxy).netloc, timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"{V}/containers/create", iter([with_host()]), headers, encode_chunked=True)
    assert connection.getresponse().status == 403
    connection.close()


@pytest.fixture
def created(proxy: str) -> Iterator[str]:
    status, text = ask(proxy, "POST", f"{V}/containers/create", sandbox())
    assert status == 201, text
    container = json.loads(text)["Id"]
    yield container
    assert ask(proxy, "DELETE", f"{V}/containers/{container}?v=True&force=True")[0] == 204


def test_what_was_made_is_what_was_asked(created: str) -> None:
    host = json.loads(docker("inspect", created))[0]["HostConfig"]
    assert (host["Privileged"], host["NetworkMode"], host["ReadonlyRootfs"]) == (False, "none", True)
    assert not any(host[name] for name in ("Binds", "Devices", "CapAdd", "PidMode", "UsernsMode"))
    assert host["SecurityOpt"] == ["no-new-privileges", f"seccomp={SECCOMP}"]


@pytest.mark.parametrize(
    "change", [{"User": "0"}, {"Privileged": True}, {"WorkingDir": "/"}, {"user": "0"}, {"User": None}]
)
def test_sessions_that_no_agent_opens(proxy: str, created: str, change: dict[str, Any]) -> None:
    body = {
        "User": USER,
        "Privileged": False,
        "AttachStdin": True,
        "Cmd": session_command(LEASE_S),
        "Env": None,
    }
    assert refused(proxy, "POST", f"{V}/containers/{created}/exec", {**body, **change})
    docker("start", created)
    assert ask(proxy, "POST", f"{V}/containers/{created}/exec", body)[0] == 201


@pytest.mark.parametrize("change", [{"RestartPolicy": {"Name": "no"}}, {"Devices": []}, {"CpusetCpus": "0"}])
def test_limits_that_no_agent_sets(proxy: str, created: str, change: dict[str, Any]) -> None:
    assert refused(proxy, "POST", f"{V}/containers/{created}/update", {**resource_limits(SMALL), **change})
    assert ask(proxy, "POST", f"{V}/containers/{created}/update", resource_limits(SMALL))[0] == 200


def test_after_a_session_that_failed_nothing_slips_through(proxy: str) -> None:
    """A connection that did not become a session is still one of requests, and each is judged."""
    connection = http.client.HTTPConnection(urlsplit(proxy).netloc, timeout=60)
    headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    connection.request("POST", f"{V}/exec/{NOBODY}/start", b'{"Tty": false, "Detach": false}', headers)
    answer = connection.getresponse()
    assert (answer.status, b"No such exec" in answer.read()) == (404, True)
    connection.request("GET", f"{V}/info")
    assert connection.getresponse().status == 403
    connection.close()


# ---- the daemon and the proxy come and go ----------------------------------------------------------


def test_a_daemon_that_is_gone_is_told_in_its_own_form(images: Images, tmp_path: Path) -> None:
    name = f"{PREFIX}-lonely"
    words = [word for word in proxy_words(images, name, "2375") if "docker.sock:" not in word]
    words.remove("-v")
    docker(*words)
    try:
        host = f"tcp://127.0.0.1:{published(name, 2375)}"
        status, text = ask(host, "GET", "/version")
        assert (status, json.loads(text)["message"]) == (
            503,
            "the Docker daemon behind the proxy does not answer",
        )
        assert "503" in docker_problem(host, {})
    finally:
        docker("rm", "-f", name)
