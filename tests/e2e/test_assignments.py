"""An assignment that changes while the agent runs: the mesh knows it, and no process begins anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chorus.dev import WhooshServer

from .conftest import Agent, bare_environ
from .test_lone import Started, start
from .test_lone import started as started
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]
# Far beyond the test: an agent that never founds a mesh of its own.
NEVER = "24h"


@pytest.fixture
def whoosh(tmp_path: Path) -> Iterator[WhooshServer]:
    with WhooshServer(tmp_path) as server:
        yield server


def say(server: WhooshServer, **fields: Any) -> None:
    aside = server.folder / "new"
    aside.write_text(json.dumps(fields))
    aside.rename(server.folder / "one.json")


def agent_of(one: Started) -> Agent:
    said = one.description()
    ports = said["ports"]
    return Agent(
        said["agent_id"],
        f"http://127.0.0.1:{ports['api']}",
        f"http://127.0.0.1:{ports['health']}",
        said["multiaddrs"][0],
        (one.data_dir / "api-token").read_text().strip(),
        one.data_dir,
        said["pid"],
    )


def listed(by: Agent, agent_id: str) -> dict[str, Any] | None:
    try:
        items = by.get("/api/v1/agents").json()["items"]
    except (httpx.TransportError, KeyError):
        return None
    return next((item for item in items if item["agent_id"] == agent_id), None)


def entries(agent: Agent) -> list[dict[str, Any]]:
    return [item["data"] for item in agent.get("/api/v1/log", type="assignment").json()["items"]]


def test_a_live_change(short_dir: Path, started: list[Started], whoosh: WhooshServer) -> None:
    say(whoosh, role="developer", max_tasks=2)
    licence = f"dev-assigned-{os.urandom(4).hex()}"
    alone = {"CHORUS_MDNS_ENABLED": "false"}
    url = f"{whoosh.url}/assignments/one.json"
    started.append(start(short_dir, "one", licence, ASSIGN_URL=url, **alone))
    started.append(start(short_dir, "two", licence, CHORUS_ELECTION_JOIN_WAIT=NEVER, **alone))
    one, two = (agent_of(each) for each in started)
    until(lambda: (found := listed(one, "one")) and found["role"] == "developer")
    assert one.get("/api/v1/status").json()["assignment"]["last_load"]["source"] == "server"
    before = one.processes()

    # Nobody has told the two of each other: the new assignment does.
    say(whoosh, role="reviewer", expertise=["rust"], max_tasks=1, bootstrap_peers=[two.multiaddr])
    os.kill(one.pid, signal.SIGHUP)
    found = until(lambda: (found := listed(two, "one")) and found["role"] == "reviewer" and found)
    assert (found["expertise"], found["tasks"]["max"]) == (["rust"], 1)
    assert one.processes() == before
    status = one.get("/api/v1/status").json()
    assert (status["role"], status["tasks"]["max"]) == ("reviewer", 1)
    until(lambda: len(entries(one)) == 2)
    assert sorted(entries(one)[-1]["changed"]) == ["bootstrap_peers", "expertise", "max_tasks", "role"]

    # What is sealed for a role is readable with it, and no longer with another.
    address = "ucxl://two:tester@any-project:live/*^/plan"
    content = two.ask("PUT", "/ucxi/v1/put", params={"address": address}, content=b"sealed")
    assert content.is_success, content.text

    def readable() -> int:
        return one.ask("GET", "/ucxi/v1/get", params={"address": address}).status_code

    until(lambda: readable() == 403)
    say(whoosh, role="tester")
    assert one.post("/api/v1/reload", {}).json()["kept"] == []
    until(lambda: readable() == 200)
    say(whoosh, role="reviewer", expertise=["rust"], max_tasks=1)
    assert one.post("/api/v1/reload", {}).json()["changed"] != []
    until(lambda: readable() == 403)

    # Ten signals within a second: at most three loads, the last one after the last signal.
    asked = len(whoosh.seen)
    begun = time.monotonic()
    for number in range(10):
        say(whoosh, role="reviewer", expertise=["rust"], max_tasks=number + 1)
        os.kill(one.pid, signal.SIGHUP)
        time.sleep(max(0.0, begun + (number + 1) * 0.09 - time.monotonic()))
    in_time = time.monotonic() - begun < 1
    until(lambda: (found := listed(two, "one")) and found["tasks"]["max"] == 10)
    assert not in_time or len(whoosh.seen) - asked <= 3

    # What is refused is named, and nothing changes.
    whoosh.be("wrong")
    answer = one.post("/api/v1/reload", {}).json()
    assert answer["changed"] == []
    assert [problem.partition(":")[0] for problem in answer["refused"]] == ["role", "max_tasks", "'colour'"]
    assert one.get("/api/v1/status").json()["role"] == "reviewer"
    whoosh.be("well")
    say(whoosh, role="architect", max_tasks=4)
    environ = {**bare_environ(), "CHORUS_API_URL": one.api, "CHORUS_API_TOKEN": one.token}
    ctl = [sys.executable, "-m", "chorus.ctl", "reload"]
    done = subprocess.run(ctl, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "changed: role" in done.stdout
    until(lambda: (found := listed(two, "one")) and found["role"] == "architect")

    # A process that begins later begins with what counts now.
    os.kill(one.processes()["coordinator"], signal.SIGKILL)
    until(lambda: one.processes().get("coordinator") not in (None, before["coordinator"]))
    until(lambda: started[0].answers("/ready", 200))
    found = listed(two, "one")
    assert found is not None
    assert found["role"] == "architect"
    assert two.post("/api/v1/reload", {}).status_code == 409


def test_a_start_without_an_answer_and_with_a_copy(
    short_dir: Path, started: list[Started], whoosh: WhooshServer
) -> None:
    whoosh.be("failing")
    say(whoosh, role="developer")
    licence = f"dev-assigned-{os.urandom(4).hex()}"
    url = f"{whoosh.url}/assignments/one.json"
    started.append(start(short_dir, "one", licence, ASSIGN_URL=url, CHORUS_AGENT_ROLE="tester"))
    one = started[0]

    def check() -> dict[str, Any]:
        answer = one.probe("/health")
        checks = answer.json()["checks"] if answer is not None else []
        return next((each for each in checks if each["name"] == "assignment"), {})

    until(lambda: "answered 500" in check().get("detail", "") and not check()["ok"])
    assert agent_of(one).get("/api/v1/status").json()["role"] == "tester"
    # It asks again by itself.
    whoosh.be("well")
    until(lambda: check().get("ok"))
    assert agent_of(one).get("/api/v1/status").json()["role"] == "developer"
    assert one.end_by_ctrl_c() == 0

    # Later the server is away, and the last good copy counts.
    whoosh.be("failing")
    started.append(start(short_dir, "one", licence, ASSIGN_URL=url, CHORUS_AGENT_ROLE="tester"))
    one = started[1]
    until(lambda: "the last good copy counts" in check().get("detail", ""))
    assert check()["ok"]
    assert agent_of(one).get("/api/v1/status").json()["role"] == "developer"
