"""The agent's image: what it says of itself, and how it runs with a mounted socket or behind the proxy."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chorus.agent.version import build_info
from chorus.executor.docker.container import LABEL_PEER

from .conftest import PREFIX, ROOT, SOCKET, Images, docker, proxy_words, published, run, until

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

NOBODY = 65534
# More than a task in flight and the stop of the processes take.
STOP_S = "390"


def test_the_second_build_finds_everything_done(images: Images) -> None:
    before = docker("image", "inspect", "--format", "{{.Id}}", images.agent, images.proxy)
    assert images.build().count("is up to date") == 2
    assert docker("image", "inspect", "--format", "{{.Id}}", images.agent, images.proxy) == before


def test_the_image_says_what_it_is(images: Images) -> None:
    config = json.loads(docker("image", "inspect", images.agent))[0]["Config"]
    assert config["User"] == "10001:10001"
    assert set(config["ExposedPorts"]) == {"9000/tcp", "8080/tcp", "8081/tcp"}
    assert set(config["Volumes"]) == {"/var/lib/chorus"}
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["chorus-agent"]
    assert "CHORUS_API_HOST=0.0.0.0" in config["Env"]
    assert config["Healthcheck"]["Test"][-1] == "chorus.agent.probe"
    ask = "cat /etc/debian_version; wc -l </etc/ssl/certs/ca-certificates.crt"
    release, certificates = docker("run", "--rm", "--entrypoint", "sh", images.agent, "-c", ask).splitlines()
    assert release.startswith("12.")
    assert int(certificates) > 1000


def test_version_commit_and_date_of_the_build_are_in_it(images: Images) -> None:
    labels = json.loads(docker("image", "inspect", images.agent))[0]["Config"]["Labels"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    commit = run("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD").stdout.strip()
    assert (said["title"], said["licenses"]) == ("CHORUS agent", "Apache-2.0")
    assert (said["version"], said["revision"]) == (build_info()[0], commit)
    created = re.fullmatch(r"(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\dZ", said["created"])
    assert created
    line = docker("run", "--rm", "--network", "none", images.agent, "--version")
    assert line == f"CHORUS-agent {build_info()[0]} (build: {commit}, {created[1]})"


class Agent:
    """An agent in a container of its own, asked as its people do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.token = ""
        self.peer = ""

    def can_run(self) -> bool:
        """Whether it takes tasks; alone in its mesh it is not ready for an orchestrator."""
        if docker("inspect", "--format", "{{.State.Running}}", self.name) != "true":
            raise AssertionError(docker("logs", self.name, check=False))
        self.token = docker("exec", self.name, "cat", "/var/lib/chorus/api-token", check=False)
        with contextlib.suppress(httpx.TransportError):
            status = self.api("GET", "/api/v1/status")
            if status.status_code == httpx.codes.OK and status.json()["mesh"]["id"]:
                self.peer = str(status.json()["peer_id"])
                return bool(self.health()["docker"]["ok"])
        return False

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{published(self.name, port)}"

    def health(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(self.url(8081) + "/health", timeout=30, trust_env=False).json()
        return answer

    def api(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(
            method, self.url(8080) + path, headers=headers, timeout=90, trust_env=False, **more
        )

    def runs_a_task(self) -> None:
        """From beginning to end."""
        task = {"title": "contained", "language": "base", "commands": ["echo from a sandbox; id -u"]}
        answer = self.api("POST", "/api/v1/tasks", json=task)
        assert answer.status_code == 201, answer.text
        path = f"/api/v1/tasks/{answer.json()['task_id']}"
        until(lambda: self.api("GET", path).json()["state"] in {"completed", "failed"})
        assert self.api("GET", path).json()["state"] == "completed"
        assert self.api("GET", f"{path}/logs").text == "from a sandbox\n1000\n"


@contextlib.contextmanager
def running(image: str, name: str, *words: str) -> Iterator[Agent]:
    """An agent in a container of its own that is ready to take tasks; it must stop cleanly."""
    ports = [word for port in (9000, 8080, 8081) for word in ("-p", f"127.0.0.1::{port}")]
    docker("run", "-d", "--name", name, "-e", "CHORUS_LICENSE_ID=dev-1", *ports, *words, image)
    try:
        agent = Agent(name)
        until(agent.can_run)
        yield agent
        docker("stop", "-t", STOP_S, name)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
        assert docker("ps", "-aq", "--filter", f"label={LABEL_PEER}={agent.peer}") == ""
    finally:
        docker("rm", "-f", "-v", name)


def test_the_contracts_own_example(images: Images) -> None:
    """With the socket mounted, and its group as the refusal without it says."""
    refusal = start_fails(images, "-v", f"{SOCKET}:{SOCKET}")
    group = re.search(r"docker run --group-add (\d+)\)", refusal)
    assert group
    assert int(group[1]) == SOCKET.stat().st_gid
    mounted = ("-v", f"{SOCKET}:{SOCKET}", "--group-add", group[1], "-e", "CHORUS_AGENT_ID=agent-1")
    with running(images.agent, f"{PREFIX}-mounted", *mounted) as agent:
        agent.runs_a_task()
        until(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", agent.name) == "healthy")
        assert httpx.get(agent.url(8081) + "/healthz", timeout=30, trust_env=False).status_code == 200
        assert docker("exec", agent.name, "id", "-u") == "10001"


@pytest.fixture
def behind_the_proxy(proxy_image: str) -> Iterator[str]:
    """A network on which the proxy is, and nobody else."""
    network, proxy = f"{PREFIX}-behind", f"{PREFIX}-behind-proxy"
    docker("network", "create", network)
    try:
        there = ("--network", network, "--network-alias", "docker-proxy")
        docker(*proxy_words(proxy_image, proxy, "2375", *there))
        yield network
    finally:
        docker("rm", "-f", proxy, check=False)
        docker("network", "rm", network)


def test_behind_the_proxy_as_nobody_with_nothing_to_write(images: Images, behind_the_proxy: str) -> None:
    volume = f"{PREFIX}-nobody"
    docker("volume", "create", volume)
    own = ("run", "--rm", "--user", "0", "-v", f"{volume}:/var/lib/chorus:nocopy", "--entrypoint", "chown")
    docker(*own, images.agent, f"{NOBODY}:{NOBODY}", "/var/lib/chorus")
    walls = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    place = ("--network", behind_the_proxy, "-e", "DOCKER_HOST=tcp://docker-proxy:2375")
    who = ("--user", f"{NOBODY}:{NOBODY}", "-v", f"{volume}:/var/lib/chorus:nocopy")
    try:
        with running(images.agent, f"{PREFIX}-hardened", *walls, *place, *who) as agent:
            agent.runs_a_task()
            status = docker("exec", agent.name, "cat", "/proc/1/status")
            assert re.search(rf"^Uid:(\s+{NOBODY}){{4}}$", status, re.MULTILINE)
            assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
            assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
            assert "Read-only" in docker("exec", agent.name, "touch", "/x", check=False)
    finally:
        docker("volume", "rm", volume)


def test_process_1_takes_away_what_ends_and_answers_signals(images: Images, behind_the_proxy: str) -> None:
    place = ("--network", behind_the_proxy, "-e", "DOCKER_HOST=tcp://docker-proxy:2375")
    with running(images.agent, f"{PREFIX}-init", *place) as agent:
        assert docker("exec", agent.name, "cat", "/proc/1/comm") == "chorus-agent"
        # An orphan becomes process 1's child, and ends.
        orphan = docker("exec", agent.name, "sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!")
        gone = ("exec", agent.name, "cat", f"/proc/{orphan}/stat")
        until(lambda: "No such file" in docker(*gone, check=False))
        docker("kill", "--signal", "HUP", agent.name)
        until(lambda: "SIGHUP" in docker("logs", agent.name, check=False))
        agent.runs_a_task()


# ---- starts that fail ------------------------------------------------------------------------------


def start_fails(images: Images, *words: str) -> str:
    """What an agent says that must not start; its exit code is 1."""
    done = run("docker", "run", "--rm", "-e", "CHORUS_LICENSE_ID=dev-1", *words, images.agent, check=False)
    assert done.returncode == 1, done
    [line] = done.stderr.splitlines()
    assert line.startswith("❌ Failed to create P2P node: failed to create Docker client: ")
    return line


def test_without_a_socket(images: Images) -> None:
    line = start_fails(images)
    assert "No such file or directory" in line
    assert "-v /var/run/docker.sock:/var/run/docker.sock" in line


@pytest.mark.parametrize(
    ("host", "why"), [("tcp://127.0.0.1:2375", "Connection refused"), ("tcp://no-such-host.invalid:2375", "")]
)
def test_with_nobody_at_an_address(images: Images, host: str, why: str) -> None:
    line = start_fails(images, "-e", f"DOCKER_HOST={host}")
    assert why in line
    assert "on a network that this container is on too" in line
