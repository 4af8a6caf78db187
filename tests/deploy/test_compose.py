"""deploy/compose.yaml as an operator starts it: three agents in containers, and what may happen to them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.executor.docker.container import LABEL_PEER

from .conftest import DEPLOY, PREFIX, SOCKET, Images, docker, run, until

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

TOKEN = "a-token-of-this-test-alone"
ROLES = ("agent-1", "agent-2", "agent-3")
# The most that a test's compose file has.
AGENTS_MAX = 5


@dataclass
class Deployed:
    """A running compose project."""

    command: Sequence[str]
    environ: dict[str, str]
    # In `deploy`, or anywhere by their whole paths.
    files: tuple[str, ...] = field(default=("compose.yaml",))
    services: tuple[str, ...] = field(default=ROLES)

    def compose(self, *words: str) -> str:
        files = [word for name in self.files for word in ("-f", str(DEPLOY / name))]
        return run(*self.command, *files, *words, **self.environ).stdout.strip()

    def down(self) -> None:
        """In order, so that the agents remove their sandboxes themselves; the proxy is the last to go."""
        peers = []
        for service in self.services:
            with contextlib.suppress(httpx.TransportError, AssertionError):
                peers.append(self.identity(service)[0])
        self.compose("stop", "-t", "120", *self.services)
        self.compose("down", "-v")
        for peer in peers:
            assert docker("ps", "-aq", "--filter", f"label={LABEL_PEER}={peer}") == ""

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service)

    def url(self, service: str, port: int) -> str:
        return "http://" + self.compose("port", service, str(port))

    def api(self, service: str, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = self.url(service, 8080) + path
        return httpx.request(method, url, headers=headers, timeout=90, trust_env=False, **more)

    def ready(self, service: str) -> httpx.Response | None:
        """None while nobody answers."""
        with contextlib.suppress(httpx.TransportError, AssertionError):
            return httpx.get(self.url(service, 8081) + "/ready", timeout=30, trust_env=False)
        return None

    def until_ready(self, *services: str, status: int = 200) -> str:
        """Waits for all of them; returns what the last said."""
        text = ""
        for service in services:
            answer = until(
                lambda service=service: (a := self.ready(service)) and a.status_code == status and a
            )
            text = answer.text
        return text

    def submit(self, service: str, *commands: str) -> str:
        task = {"title": "deployed", "language": "base", "commands": list(commands)}
        answer = self.api(service, "POST", "/api/v1/tasks", json=task)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def task(self, service: str, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self.api(service, "GET", f"/api/v1/tasks/{task_id}").json()
        return task

    def until_state(self, service: str, task_id: str, *states: str) -> dict[str, Any]:
        return until(lambda: (t := self.task(service, task_id))["state"] in states and t)

    def runs(self, service: str) -> None:
        """A task goes through from beginning to end."""
        task_id = self.submit(service, "echo through the proxy; id -u")
        task = self.until_state(service, task_id, "completed", "failed")
        assert task["state"] == "completed", task
        logs = self.api(service, "GET", f"/api/v1/tasks/{task_id}/logs").text
        assert logs == "through the proxy\n1000\n"

    def identity(self, service: str) -> tuple[str, str]:
        status = self.api(service, "GET", "/api/v1/status").json()
        return status["peer_id"], status["mesh"]["id"]

    def service_of(self, agent_id: str) -> str:
        for service in ROLES:
            with contextlib.suppress(httpx.TransportError, AssertionError):  # one may be stopped
                if self.api(service, "GET", "/api/v1/status").json()["agent_id"] == agent_id:
                    return service
        raise AssertionError(f"no service is {agent_id}")


def environment(images: Images, folder: Path, name: str) -> dict[str, str]:
    folder.chmod(0o755)
    secrets = {"API_TOKEN_FILE": TOKEN, "CLUSTER_SECRET_FILE": os.urandom(24).hex()}
    for variable, value in secrets.items():
        (folder / variable).write_text(value + "\n")
        (folder / variable).chmod(0o444)
    ports = {f"{what}_PORT_{n}": "0" for what in ("P2P", "API", "HEALTH") for n in range(1, AGENTS_MAX + 1)}
    return {
        "COMPOSE_PROJECT_NAME": name,
        "CHORUS_LICENSE_ID": f"dev-{PREFIX}",
        "CHORUS_IMAGE": images.agent,
        "DOCKER_PROXY_IMAGE": images.proxy,
        "DOCKER_GID": str(SOCKET.stat().st_gid),
        **{variable: str(folder / variable) for variable in secrets},
        **ports,
    }


@pytest.fixture(scope="module")
def deployed(
    images: Images, compose: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("secrets")
    folder.parent.chmod(0o755)
    made = Deployed(compose, environment(images, folder, f"{PREFIX}-a"))
    try:
        made.compose("up", "-d")
        made.until_ready(*ROLES)
        yield made
    finally:
        made.down()


def test_they_are_one_mesh_and_process_1_is_the_agent(deployed: Deployed) -> None:
    assert len({deployed.identity(service)[1] for service in ROLES}) == 1
    for service in ROLES:
        container = deployed.container(service)
        assert docker("exec", container, "id", "-u") == "10001"
        assert docker("exec", container, "cat", "/proc/1/comm") == "chorus-agent"
        assert docker("exec", container, "pidof", "chorus-agent") == "1"
        until(
            lambda container=container: (
                docker("inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"
            )
        )


def test_a_task_runs_and_another_is_cancelled(deployed: Deployed) -> None:
    deployed.runs("agent-1")
    task_id = deployed.submit("agent-2", "echo up; sleep 3600")
    deployed.until_state("agent-3", task_id, "running")
    assert deployed.api("agent-1", "POST", f"/api/v1/tasks/{task_id}/cancel").status_code == 202
    assert (
        deployed.until_state("agent-2", task_id, "cancelled", "completed", "failed")["state"] == "cancelled"
    )
    until(lambda: not docker("ps", "-q", "--filter", f"name={task_id}"))


def test_a_hangup_reaches_process_1_alone(deployed: Deployed) -> None:
    container = deployed.container("agent-1")
    before = docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/comm | grep -c python")
    docker("exec", container, "sh", "-c", "kill -HUP $(pidof chorus-agent)")
    # Docker gives both streams; the agent's is the second.
    until(lambda: "SIGHUP" in docker("logs", container, check=False))
    deployed.until_ready("agent-1")
    assert docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/comm | grep -c python") == before


def test_without_the_proxy_they_are_not_ready_and_recover(deployed: Deployed) -> None:
    # Not `kill`: that, too, would be undone by the restart policy.
    deployed.compose("stop", "-t", "0", "docker-proxy")
    said = deployed.until_ready(*ROLES, status=503)
    assert "docker" in said
    waiting = deployed.submit("agent-1", "echo waited")
    assert deployed.task("agent-1", waiting)["state"] == "announced"
    for service in ROLES:
        state = json.loads(docker("inspect", deployed.container(service)))[0]["State"]
        assert (state["Running"], state["Health"]["Status"]) == (True, "healthy")
    deployed.compose("start", "docker-proxy")
    deployed.until_ready(*ROLES)
    assert deployed.until_state("agent-2", waiting, "completed", "failed")["state"] == "completed"
    deployed.runs("agent-3")


def test_a_stop_finishes_the_work_and_a_start_brings_the_same_agent_back(deployed: Deployed) -> None:
    task_id = deployed.submit("agent-1", "sleep 5; echo finished")
    task = deployed.until_state("agent-1", task_id, "running")
    service = deployed.service_of(task["agent_id"])
    other = next(name for name in ROLES if name != service)
    before, container = deployed.identity(service), deployed.container(service)
    deployed.compose("stop", service)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    task = deployed.until_state(other, task_id, "completed", "failed")
    assert (task["state"], task["attempt"]) == ("completed", 1)
    deployed.compose("start", service)
    deployed.until_ready(*ROLES)
    assert deployed.identity(service) == before
    deployed.runs(service)


def test_a_second_signal_hands_the_work_to_another(deployed: Deployed) -> None:
    task_id = deployed.submit("agent-1", "sleep 20; echo done")
    task = deployed.until_state("agent-1", task_id, "running")
    service = deployed.service_of(task["agent_id"])
    other = next(name for name in ROLES if name != service)
    container = deployed.container(service)
    with subprocess.Popen(["docker", "wait", container], stdout=subprocess.PIPE, text=True) as waiting:
        docker("kill", "--signal", "TERM", container)
        until(
            lambda: (
                "a second signal gives them back" in docker("logs", "--tail", "50", container, check=False)
            )
        )
        docker("kill", "--signal", "TERM", container)
        assert waiting.stdout is not None
        assert waiting.stdout.read().strip() == "0"
    task = deployed.until_state(other, task_id, "completed", "failed")
    assert (task["state"], task["attempt"]) == ("completed", 2)
    assert deployed.service_of(task["agent_id"]) != service
    deployed.compose("start", service)
    deployed.until_ready(*ROLES)


def test_under_tls(images: Images, compose: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("tls")
    folder.parent.chmod(0o755)
    run(str(DEPLOY / "certs.sh"), str(folder / "certs"), "docker-proxy")
    (folder / "certs").chmod(0o755)
    environ = environment(images, folder, f"{PREFIX}-t")
    environ["DOCKER_SERVER_CERTS"] = str(folder / "certs" / "server")
    environ["DOCKER_CLIENT_CERTS"] = str(folder / "certs" / "client")
    made = Deployed(compose, environ, ("compose.yaml", "compose.tls.yaml"))
    try:
        made.compose("up", "-d")
        made.until_ready(*ROLES)
        made.runs("agent-1")
    finally:
        made.down()
