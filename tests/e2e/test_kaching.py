"""Real agents with licences of a real KACHING: suspended at work, through outages, and each with its seat."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.testing.kaching import KachingProcess

from .conftest import GENEROUS_S, bare_environ
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

LINE = "❌ Failed to initialize CHORUS agent: license validation failed: "
SECRET = "the secret of the cluster of these tests"


class Licensed:
    """An agent with a licence of its own, which other agents of the cluster need not share."""

    def __init__(self, folder: Path, server: KachingProcess, name: str, **more: str) -> None:
        self.name, self.licence, self.folder = name, f"licence-of-{name}", folder
        self.log = folder / f"{name}.log"
        with contextlib.suppress(httpx.HTTPStatusError):  # there already
            server.create(self.licence, cluster_secret=SECRET, lease_ttl_s=3)
        environ = bare_environ() | {
            "XDG_STATE_HOME": str(folder),
            "CHORUS_AGENT_ID": name,
            "CHORUS_LICENSE_ID": self.licence,
            "CHORUS_KACHING_URL": server.url,
            "CHORUS_KACHING_PUBLIC_KEY": server.public_key,
            "CHORUS_P2P_HOST": "127.0.0.1",
            "CHORUS_AGENT_ROLE": name,
            "CHORUS_ELECTION_HEARTBEAT": "300ms",
            "CHORUS_ELECTION_TIMEOUT": "1s",
            "CHORUS_TASK_LEASE": "5s",
        }
        environ |= {f"CHORUS_{port}_PORT": "0" for port in ("P2P", "API", "HEALTH")}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "chorus.agent"]
            self.process = subprocess.Popen(command, env=environ | more, stderr=log, start_new_session=True)

    def ended(self) -> tuple[int, str]:
        """Exit code and last line."""
        code = self.process.wait(GENEROUS_S)
        return code, self.log.read_text().splitlines()[-1]

    def description(self) -> dict[str, Any]:
        def look() -> Any:
            assert self.process.poll() is None, self.log.read_text()
            path = self.folder / "chorus" / self.name / "agent.json"
            return path.exists() and json.loads(path.read_bytes())

        found: dict[str, Any] = until(look)
        return found

    def probe(self, path: str) -> Any:
        """Status and body, once there is an answer."""

        def ask() -> Any:
            url = f"http://127.0.0.1:{self.description()['ports']['health']}{path}"
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(url, timeout=30, trust_env=False)
                return answer.status_code, answer.json()

        return until(ask)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        token = (self.folder / "chorus" / self.name / "api-token").read_text().strip()
        answer = httpx.request(
            method,
            f"http://127.0.0.1:{self.description()['ports']['api']}{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
        )
        assert answer.is_success, answer.text
        return answer.json()

    def submit(self, command: str, role: str) -> str:
        task = {"title": command, "commands": [command], "language": "python", "required_role": role}
        return str(self.api("POST", "/api/v1/tasks", task)["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/api/v1/tasks/{task_id}")
        return found

    def licence_changes(self) -> list[tuple[str, str]]:
        """The states before and after each change, as its log has them."""
        items = self.api("GET", "/api/v1/log?type=license_changed")["items"]
        return [(item["data"]["before"], item["data"]["state"]) for item in items]

    def licence_state(self) -> str:
        return str(self.probe("/health")[1].get("license", {}).get("state"))


@pytest.fixture
def server(short_dir: Path) -> Iterator[KachingProcess]:
    with KachingProcess(short_dir / "kaching") as running:
        yield running


@pytest.fixture
def agents(needs: None, short_dir: Path, server: KachingProcess) -> Iterator[Any]:
    """Starts agents, and ends them."""
    made: list[Licensed] = []

    def start(name: str, **more: str) -> Licensed:
        made.append(Licensed(short_dir, server, name, **more))
        return made[-1]

    yield start
    for agent in made:
        if agent.process.poll() is None:
            agent.process.send_signal(signal.SIGTERM)
    for agent in made:
        agent.process.wait(GENEROUS_S)


def together(first: Licensed, second: Licensed) -> None:
    for agent in (first, second):
        until(lambda agent=agent: agent.probe("/ready")[0] == 200)  # type: ignore[misc]


def test_a_suspension_while_three_tasks_run(agents: Any, server: KachingProcess) -> None:
    worker, other = agents("worker"), agents("other")
    together(worker, other)
    tasks = [other.submit(f"sleep 15; echo {number}", role="worker") for number in range(3)]
    until(lambda: all(other.task(task)["state"] == "running" for task in tasks))
    server.rule("suspend", worker.licence)
    code, line = worker.ended()
    assert code == 1
    assert line.startswith(f"{LINE}the licence is suspended: ")
    for task in tasks:
        done = until(lambda task=task: (found := other.task(task))["result"] and found)  # type: ignore[misc]
        assert (done["state"], done["agent_id"], done["attempt"]) == ("completed", "worker", 1)
    assert other.licence_state() == "valid"


def test_back_within_the_grace_nothing_is_noticed_but_the_detail(agents: Any, server: KachingProcess) -> None:
    worker, other = agents("worker"), agents("other")
    together(worker, other)
    task = other.submit("sleep 15; echo done", role="worker")
    until(lambda: other.task(task)["state"] == "running")
    server.stop()
    until(lambda: worker.licence_state() == "grace")
    status, health = worker.probe("/health")
    assert status == 200
    [check] = [check for check in health["checks"] if check["name"] == "license"]
    assert check["ok"] is True
    assert "grace until" in check["detail"]
    assert worker.probe("/ready")[0] == 200
    server.start()
    until(lambda: worker.licence_state() == "valid" and other.licence_state() == "valid")
    done = until(lambda: (found := other.task(task))["result"] and found)
    assert (done["state"], done["agent_id"], done["attempt"]) == ("completed", "worker", 1)
    health = worker.probe("/health")[1]
    assert health["crashes"] == {}
    assert worker.api("GET", "/api/v1/status")["license"]["limits"] == health["license"]["limits"]
    until(lambda: worker.licence_changes() == [("valid", "grace"), ("grace", "valid")])


def test_away_past_the_grace_ends_agents_when_their_tasks_are_done(
    agents: Any, server: KachingProcess, tmp_path: Path
) -> None:
    worker = agents("worker", CHORUS_LICENSE_GRACE="6s")
    other = agents("other")
    together(worker, other)
    task = other.submit("sleep 15; echo done", role="worker")
    until(lambda: other.task(task)["state"] == "running")
    server.stop()
    code, line = worker.ended()
    assert code == 1
    assert line.startswith(LINE)
    assert "CHORUS_LICENSE_GRACE" in line
    done = until(lambda: (found := other.task(task))["result"] and found)
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert other.licence_state() == "grace"


def test_a_clean_stop_gives_the_seat_back_and_a_killed_agent_keeps_its_own(
    agents: Any, server: KachingProcess
) -> None:
    worker = agents("worker")
    until(lambda: worker.licence_state() == "valid")
    peer = worker.description()["peer_id"]
    assert [lease["peer_id"] for lease in server.leases()] == [peer]
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait(GENEROUS_S)
    again = agents("worker")
    until(lambda: again.licence_state() == "valid")
    assert again.description()["peer_id"] == peer
    again.process.send_signal(signal.SIGTERM)
    assert again.process.wait(GENEROUS_S) == 0
    assert server.leases() == []


def test_a_second_agent_with_the_same_lease_is_refused(agents: Any, server: KachingProcess) -> None:
    worker = agents("worker")
    until(lambda: worker.probe("/health")[1].get("election", {}).get("leader"))
    [lease] = server.leases()
    server.misbehave("lying", claims={"lease_id": lease["id"]})
    other = agents("other")
    detail = until(
        lambda: (
            (said := other.probe("/health")[1].get("election", {}).get("detail", ""))
            and "another member's" in said
            and said
        )
    )
    assert "has not taken this agent in" in detail
    assert worker.probe("/health")[1]["election"]["mesh"] is not None
    server.misbehave("none")
    together(worker, other)
