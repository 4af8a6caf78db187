"""Five agents of a compose file are replaced one after the other, each with a fresh volume, under load."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from chorus.executor.docker.container import LABEL_PEER
from chorus.wire.ids import new_id

from .conftest import DEPLOY, PREFIX, Images, docker, published
from .test_compose import AGENTS_MAX, TOKEN, Deployed, environment, until

pytestmark = [pytest.mark.deploy, pytest.mark.heavy]

SERVICES = tuple(f"agent-{number}" for number in range(1, AGENTS_MAX + 1))
# Members that are away are gone within seconds, so that the test need not wait for minutes.
FAST = {
    "CHORUS_ELECTION_HEARTBEAT": "300ms",
    "CHORUS_ELECTION_TIMEOUT": "2s",
    "CHORUS_TASK_LEASE": "5s",
    "CHORUS_MEMBER_ABSENCE": "10s",
    "CHORUS_SHUTDOWN_TIMEOUT": "30s",
}
ATTEMPTS_MAX = 50
# So that the load does not keep the machine from the rest.
PAUSE_S = 1.0


def five_agents(folder: Path) -> Path:
    """The operator's compose file with two more of its agents and faster timings."""
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services, last = content["services"], content["services"]["agent-3"]
    for name in SERVICES[3:]:
        number = name.rpartition("-")[2]
        ports = [port.replace("_PORT_3", f"_PORT_{number}") for port in last["ports"]]
        services[name] = {**last, "ports": ports, "volumes": [f"data-{number}:/var/lib/chorus"]}
        content["volumes"][f"data-{number}"] = None
    for name in SERVICES:
        services[name] = {**services[name], "environment": services[name]["environment"] | FAST}
    path = folder / "compose.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


class Load:
    """Submits a task about every second, to one agent after the other, until it is told to end."""

    def __init__(self) -> None:
        # Where the agents are that may be asked; an agent that is being replaced is not.
        self.urls: dict[str, str] = {}
        self.acknowledged: list[str] = []
        self._over = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            if self._over.wait(PAUSE_S):
                return
            task = {
                "task_id": new_id(),
                "title": f"load {number}",
                "language": "base",
                "commands": ["sleep 0.2; echo done"],
                "max_attempts": ATTEMPTS_MAX,
            }
            urls = list(self.urls.values())
            for at in range(number, number + len(urls)):
                # Another agent is given the same task until one acknowledges it.
                answer = asked(urls[at % len(urls)], "POST", "/api/v1/tasks", json=task)
                if answer is not None and answer.status_code == 201:
                    self.acknowledged.append(str(task["task_id"]))
                    break

    def end(self) -> None:
        self._over.set()


def asked(url: str, method: str, path: str, **more: Any) -> httpx.Response | None:
    """One answer of an agent; None when nobody answers."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        return httpx.request(method, url + path, headers=headers, timeout=60, trust_env=False, **more)
    except httpx.TransportError:
        return None


def told(url: str, path: str) -> Any:
    """The JSON of a good answer, or None."""
    answer = asked(url, "GET", path)
    return answer.json() if answer is not None and answer.status_code == 200 else None


@pytest.fixture
def rolling(
    images: Images, compose: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("rolling")
    folder.parent.chmod(0o755)
    environ = environment(images, folder, f"{PREFIX}-r")
    made = Deployed(compose, environ, (str(five_agents(folder)),), SERVICES)
    try:
        made.compose("up", "-d")
        made.until_ready(*SERVICES)
        yield made
    finally:
        made.down()


def whole(urls: Sequence[str]) -> bool:
    """Whether these agents are one mesh that lists them alone, all present and voting."""
    stories = [told(url, "/api/v1/members") for url in urls]
    if not all(stories):
        return False
    peers = [frozenset(member["peer_id"] for member in story["items"]) for story in stories]
    return len(set(peers)) == 1 and all(
        len(story["items"]) == len(urls)
        and all(member["present"] and member["voter"] for member in story["items"])
        for story in stories
    )


def test_all_five_are_replaced_and_no_task_is_lost(rolling: Deployed) -> None:
    def url(service: str) -> str:
        return f"http://127.0.0.1:{published(rolling.container(service), 8080)}"

    load = Load()
    load.urls = {service: url(service) for service in SERVICES}
    until(lambda: whole(list(load.urls.values())))
    first = {told(at, "/api/v1/status")["peer_id"] for at in load.urls.values()}
    project = rolling.environ["COMPOSE_PROJECT_NAME"]
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load.run)
        try:
            for number, service in enumerate(SERVICES):
                seen = len(load.acknowledged)
                load.urls = {name: at for name, at in load.urls.items() if name != service}
                began = time.monotonic()
                # Every second machine fails; the others are stopped.
                rolling.compose(*(("stop", service) if number % 2 else ("kill", service)))
                rolling.compose("rm", "-f", service)
                docker("volume", "rm", f"{project}_data-{service.rpartition('-')[2]}")
                rolling.compose("up", "-d", "--no-deps", service)
                after = {**load.urls, service: url(service)}
                until(lambda after=after: whole(list(after.values())))
                load.urls = after
                print(f"{service}: whole after {time.monotonic() - began:.1f} s")
                until(lambda seen=seen: len(load.acknowledged) > seen or loading.done())
        finally:
            load.end()
        loading.result()
    # Nobody else removes the sandboxes of agents that were killed for good.
    for peer in first:
        for name in docker("ps", "-aq", "--filter", f"label={LABEL_PEER}={peer}").splitlines():
            docker("rm", "-f", name, check=False)
    urls = list(load.urls.values())
    assert first.isdisjoint(told(at, "/api/v1/status")["peer_id"] for at in urls)
    assert len(load.acknowledged) >= len(SERVICES)
    for task_id in load.acknowledged:
        for at in urls:
            task = until(ended(at, task_id))
            assert [one["state"] for one in task["attempts"]].count("completed") == 1, task


def ended(url: str, task_id: str) -> Callable[[], Any]:
    """Asks for a task until it is completed."""

    def ask() -> Any:
        task = told(url, f"/api/v1/tasks/{task_id}")
        return task and task["state"] == "completed" and task

    return ask
