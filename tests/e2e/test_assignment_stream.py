"""An assignment that changes by SIGHUP while tasks keep coming: no process begins anew, no task is tried
twice, and a program of another make sees the agent leave topics and join others.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from chorus.dev import WhooshServer

from .conftest import Agent
from .test_assignments import NEVER, agent_of, entries, listed, say
from .test_assignments import whoosh as whoosh
from .test_foreign_members import go_member
from .test_lone import Started, start
from .test_lone import started as started
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

# How many tasks come at least, and how many are open at once, besides those that only one agent may run.
LEAST: Final = 24
OPEN_MAX: Final = 5
ENDED: Final = ("completed", "failed", "cancelled")
# Signals that tell of one change.
SIGNALS: Final = 5


class Subscriptions:
    """What one agent says of its topics to the Go member that is connected to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(json.loads(line))

    def by_role(self) -> set[str]:
        """The topics of its role, its expertise and its supervisor that it is on now."""
        assert self._process.poll() is None, "the Go member ended"
        kinds = ("chorus/role/", "chorus/expertise/", "chorus/reports/")
        last = {one["topic"]: one["subscribed"] for one in list(self.said)}
        return {topic for topic, subscribed in last.items() if subscribed and topic.startswith(kinds)}


@contextmanager
def watched(command: list[str], agent: Agent, licence: str) -> Iterator[Subscriptions]:
    options = ["-agent", agent.multiaddr, "-license", licence, "-watch", "-timeout", NEVER]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE)
    try:
        yield Subscriptions(process)
    finally:
        process.terminate()
        process.wait()


class Stream:
    """Tasks that keep coming through each agent in turn. Every fourth is for a reviewer, or takes Rust."""

    def __init__(self, agents: list[Agent]) -> None:
        self._agents = agents
        self._over = threading.Event()
        self.ids: list[str] = []
        self._special: set[str] = set()

    def run(self) -> None:
        for number in itertools.count():
            if self._over.is_set() and number >= LEAST:
                return
            until(lambda: self._open() < OPEN_MAX)
            self._submit(number)

    def end(self) -> None:
        """No more are to come than the least."""
        self._over.set()

    def _submit(self, number: int) -> None:
        special: dict[str, Any] = {}
        if number % 4 == 3:
            special = ({"required_role": "reviewer"}, {"required_expertise": ["rust"]})[number % 8 > 4]
        task = {"title": f"{number}", "commands": [f"sleep {number % 3}"], "language": "python", **special}
        answer = self._agents[number % len(self._agents)].post("/api/v1/tasks", task)
        assert answer.status_code == 201, answer.text
        self.ids.append(answer.json()["task_id"])
        if special:
            self._special.add(self.ids[-1])

    def _open(self) -> int:
        """How many are open of those that any agent may run."""
        states = states_of(self._agents[1])
        return sum(states.get(one) not in ENDED for one in self.ids if one not in self._special)


def states_of(agent: Agent) -> dict[str, str]:
    items = agent.get("/api/v1/tasks", limit=500).json()["items"]
    return {item["task_id"]: item["state"] for item in items}


def hang_up(agent: Agent) -> None:
    for _ in range(SIGNALS):
        os.kill(agent.pid, signal.SIGHUP)


def running_on(agent: Agent) -> int:
    return int(agent.get("/api/v1/status").json()["tasks"]["active"])


def assigned(agent: Agent) -> dict[str, Any]:
    """What the agent says that counts, without what it says of the last load."""
    said: dict[str, Any] = agent.get("/api/v1/status").json()["assignment"]
    return {name: value for name, value in said.items() if name != "last_load"}


def written(agents: list[Agent], type: str) -> Counter[str]:
    """How often each task is named by entries of a type in the agents' logs."""
    found: Counter[str] = Counter()
    for agent in agents:
        items = agent.get("/api/v1/log", type=type, limit=1000).json()["items"]
        found.update(item["data"]["task_id"] for item in items)
    return found


def test_hangups_under_a_stream_of_tasks(
    short_dir: Path,
    started: list[Started],
    whoosh: WhooshServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    command = go_member(tmp_path_factory)
    say(whoosh, role="developer", expertise=["go"], max_tasks=2)
    licence = f"dev-stream-{os.urandom(4).hex()}"
    alone = {"CHORUS_MDNS_ENABLED": "false"}
    url = f"{whoosh.url}/assignments/one.json"
    started.append(start(short_dir, "one", licence, ASSIGN_URL=url, **alone))
    one = agent_of(started[0])
    near = {**alone, "CHORUS_BOOTSTRAP_PEERS": one.multiaddr}
    started.append(start(short_dir, "two", licence, **near))
    # Nobody knows of the third before an assignment names it.
    started.append(start(short_dir, "three", licence, CHORUS_ELECTION_JOIN_WAIT=NEVER, **alone))
    two, three = (agent_of(each) for each in started[1:])
    for each in started[:2]:
        until(lambda each=each: each.answers("/ready", 200))  # type: ignore[misc]
    before = [agent.processes() for agent in (one, two, three)]

    with watched(command, one, licence) as topics, ThreadPoolExecutor(1) as pool:
        until(lambda: topics.by_role() == {"chorus/role/developer", "chorus/expertise/go"})
        stream = Stream([one, two])
        submitting = pool.submit(stream.run)
        try:
            first = {"role": "reviewer", "expertise": ["rust"], "reports_to": "two", "max_tasks": 4}
            changes: list[dict[str, Any]] = [
                {**first, "bootstrap_peers": [three.multiaddr]},
                {"role": "architect", "expertise": ["rust", "go"], "reports_to": "three", "max_tasks": 1},
                {"max_tasks": 3},
                {"role": "developer", "expertise": ["c"], "reports_to": "two", "max_tasks": 1},
                {"role": "reviewer", "expertise": ["rust"], "reports_to": "three", "max_tasks": 2},
            ]
            for number, fields in enumerate(changes):
                until(lambda: submitting.done() or running_on(one) > 0)
                say(whoosh, **fields)
                hang_up(one)
                until(lambda fields=fields: topics.by_role() == topics_for(fields))  # type: ignore[misc]
                now = assigned(one)
                assert {name: now[name] for name in fields} == fields
                until(lambda fields=fields: in_table(two, fields))  # type: ignore[misc]
                if number == 1:
                    refused(started[0], whoosh, topics)
            until(lambda: listed(two, "three"))
        finally:
            stream.end()
        submitting.result()
        until(lambda: all(state in ENDED for state in states_of(two).values()))

    assert [agent.processes() for agent in (one, two, three)] == before
    states = states_of(three)
    assert sorted(states) == sorted(stream.ids)
    tasks = [two.get(f"/api/v1/tasks/{task_id}").json() for task_id in stream.ids]
    odd = [task for task in tasks if (task["state"], task["attempt"]) != ("completed", 1)]
    assert not odd, [(task["title"], task["state"], task["reason"], task["attempts"]) for task in odd]
    # Whatever an agent claimed, it reported on once.
    once = Counter(stream.ids)
    assert until(lambda: (found := written([one, two, three], "task_completed")) == once and found)
    assert written([one, two, three], "task_started") == once
    ran = Counter(task["agent_id"] for task in tasks)
    assert min(ran["one"], ran["two"]) > 0, ran
    # Something ran on the changing agent when a change came.
    times = [entry["at"] for entry in entries(one) if entry["changed"]]
    mine = [task for task in tasks if task["agent_id"] == "one"]
    assert any(task["claimed_at"] < at < task["finished_at"] for task in mine for at in times), times
    for task in tasks:
        if task.get("required_role") or task.get("required_expertise"):
            assert task["agent_id"] == "one", task


def topics_for(fields: dict[str, Any]) -> set[str]:
    found = {f"chorus/expertise/{word}" for word in fields.get("expertise", ())}
    for kind, name in (("role", fields.get("role")), ("reports", fields.get("reports_to"))):
        if name:
            found.add(f"chorus/{kind}/{name}")
    return found


def in_table(by: Agent, fields: dict[str, Any]) -> bool:
    """Whether another agent knows what the changed one is good for."""
    row = listed(by, "one")
    if row is None:
        return False
    wanted = (fields.get("role", ""), fields.get("expertise", []), fields["max_tasks"])
    return (row["role"], row["expertise"], row["tasks"]["max"]) == wanted


def refused(at: Started, whoosh: WhooshServer, topics: Subscriptions) -> None:
    """A bad document changes nothing, and is named wherever an operator looks."""
    one, fields = agent_of(at), ["role", "max_tasks", "'colour'"]
    known, heard = assigned(one), len(topics.said)
    whoosh.be("wrong")
    hang_up(one)

    def named(problems: list[str]) -> bool:
        return [problem.partition(":")[0] for problem in problems] == fields

    until(lambda: named(entries(one)[-1]["refused"]))
    assert named(one.get("/api/v1/status").json()["assignment"]["last_load"]["refused"])

    def check() -> dict[str, Any]:
        answer = at.probe("/health")
        checks = answer.json()["checks"] if answer is not None else []
        return next((each for each in checks if each["name"] == "assignment"), {"detail": ""})

    until(lambda: "counts: " in check()["detail"])
    assert check()["ok"]
    assert all(f"{field}:" in check()["detail"] for field in fields)
    assert assigned(one) == known
    assert len(topics.said) == heard
    whoosh.be("well")
