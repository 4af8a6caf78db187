"""What tests ask of a mesh of sites: who leads, who belongs to it, and that every task has ended once."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from chorus.wire.ids import new_id

from .sites import Site
from .test_run import until

# Elections, absences and leases of seconds, so that tests need not wait for minutes.
FAST = {
    "CHORUS_ELECTION_HEARTBEAT": "300ms",
    "CHORUS_ELECTION_TIMEOUT": "2s",
    "CHORUS_TASK_LEASE": "5s",
    "CHORUS_MEMBER_ABSENCE": "10s",
    "CHORUS_SHUTDOWN_TIMEOUT": "10s",
}
ATTEMPTS_MAX = 50
QUICK = "sleep 0.2; echo done"
# No agent has this expertise: tasks that ask for it wait.
NOBODY = "nobody"


def members(site: Site) -> list[dict[str, Any]]:
    """Whom this agent lists; empty while it does not answer."""
    return list((site.get("/api/v1/members") or {}).get("items", ()))


def voters(site: Site) -> list[dict[str, Any]]:
    """Who votes, as this agent tells."""
    return [member for member in members(site) if member["voter"]]


def mesh_of(site: Site) -> str | None:
    """The mesh that this agent is in; None also while it does not answer."""
    return (site.get("/api/v1/election") or {}).get("mesh")


def leader(site: Site) -> str | None:
    """The agent id of the leader, as this agent tells."""
    return (site.get("/api/v1/election") or {}).get("leader")


def agreed(some: Iterable[Site]) -> Any:
    """The agent id of the leader that all name, if they do."""
    named = {leader(site) for site in some}
    return len(named) == 1 and named.pop()


def leading(some: Iterable[Site]) -> Any:
    """The peer id of the leader that all name, if they do: an agent that was replaced keeps its agent id."""
    named = {(site.get("/api/v1/election") or {}).get("leader_peer") for site in some}
    return len(named) == 1 and named.pop()


def whole(some: Sequence[Site]) -> bool:
    """Whether these agents, at most five, are one mesh that lists them alone: all present, with a leader, and
    with as many votes as there can be.
    """
    if not agreed(some) or len({mesh_of(site) for site in some}) != 1:
        return False
    try:
        peers = {site.peer for site in some}
    except OSError:
        return False  # one of them is starting
    votes = len(some) - 1 + len(some) % 2
    for site in some:
        listed = members(site)
        if {member["peer_id"] for member in listed} != peers or len(listed) != len(peers):
            return False
        if not all(member["present"] for member in listed):
            return False
        if sum(member["voter"] for member in listed) != votes:
            return False
    return True


def until_whole(some: Sequence[Site]) -> None:
    """Waits until these agents are one whole mesh; raises AssertionError with what each says instead."""
    try:
        until(lambda: whole(some))
    except AssertionError:
        raise AssertionError("\n".join(map(_told, some))) from None


def _told(site: Site) -> str:
    listed = [
        f"{one['agent_id']} {one['peer_id'][-6:]}{' votes' * one['voter']}{' away' * (not one['present'])}"
        for one in members(site)
    ]
    detail = site.health().get("election", {}).get("detail")
    last = [*site.said('"level": "warning"'), *site.said('"level": "error"')][-5:]
    return f"{site.agent_id}: mesh {mesh_of(site)}, {detail}, lists {listed}\n  " + "\n  ".join(last)


def task_body(title: str, command: str = QUICK, **more: Any) -> dict[str, Any]:
    """A task under an id of its own."""
    return {
        "task_id": new_id(),
        "title": title,
        "commands": [command],
        "max_attempts": ATTEMPTS_MAX,
        **more,
    }


def submitted(site: Site, title: str) -> str | None:
    """The id of a new task, if this agent acknowledges it."""
    return offered(site, task_body(title))


def offered(site: Site, task: dict[str, Any]) -> str | None:
    """The id of this task, if this agent acknowledges it."""
    try:
        answer = site.ask("POST", "/api/v1/tasks", json=task)
    except (httpx.TransportError, OSError):
        return None
    assert answer.status_code in (201, 503), answer.text
    return str(task["task_id"]) if answer.status_code == 201 else None


def stream(some: Sequence[Site], count: int, name: str) -> list[str]:
    """Acknowledged ones of new tasks, each sent once, to each agent in turn."""
    found = (submitted(some[number % len(some)], f"{name} {number}") for number in range(count))
    return [task_id for task_id in found if task_id is not None]


def acknowledged(some: Sequence[Site], task: dict[str, Any], seed: int = 0) -> str:
    """Sends a task to one agent after the other until one acknowledges it; returns its id."""
    turn = itertools.cycle(random.Random(seed).sample(list(some), len(some)))
    return str(until(lambda: offered(next(turn), task)))


def all_acknowledged(some: Sequence[Site], count: int, name: str) -> list[str]:
    """The ids of so many new tasks, each sent to any of the agents until one acknowledges it."""
    return [acknowledged(some, task_body(f"{name} {number}"), number) for number in range(count)]


def ended_task(site: Site, task_id: str) -> dict[str, Any]:
    """The task as this agent tells of it, once it is completed and has a decision record."""

    def ended() -> Any:
        task = site.get(f"/api/v1/tasks/{task_id}")
        return task and task["state"] == "completed" and task["result"]["decision"] and task

    task: dict[str, Any] = until(ended)
    return task


def check(some: Sequence[Site], task_ids: Iterable[str]) -> None:
    """Every one of these tasks ended, once, and all agents tell the same of it."""
    for task_id in task_ids:
        stories = []
        for site in some:
            task = ended_task(site, task_id)
            stories.append((task["agent_id"], task["attempt"], task["attempts"], task["result"]["decision"]))
        assert stories.count(stories[0]) == len(stories), stories
        assert [one["state"] for one in stories[0][2]].count("completed") == 1, stories[0]
        for site in some:
            record_of(site, task_id)


def record_of(site: Site, task_id: str) -> str:
    """The hash of the one decision record on the task's result, once this agent lists it."""

    def listed() -> Any:
        page = site.get("/api/v1/decisions", task_id=task_id, kind="task_result")
        return page and page["items"]

    (item,) = until(listed)
    return str(item["hash"])


def records(site: Site) -> dict[str, int]:
    """How many decision records the mesh has, by what `chorusctl decision verify` finds of each."""
    said: dict[str, int] = json.loads(site.ctl("decision", "verify", "--all", "--json", check=False).stdout)
    return said


def until_genuine(site: Site, count: int) -> None:
    """Waits until the mesh has so many decision records, all genuine, as this agent finds."""
    found: dict[str, int] = {}

    def all_are() -> bool:
        found.update(records(site))
        return found == {"genuine": count, "unreadable": 0, "not_genuine": 0}

    try:
        until(all_are)
    except AssertionError:
        raise AssertionError(f"{site.agent_id} finds {found}, not {count} genuine ones") from None


def versions(site: Site, address: str) -> list[str]:
    """The content of all versions at an address, the oldest first."""
    found = []
    for number in itertools.count(1):
        answer = site.ask("GET", "/ucxi/v1/get", params={"address": address.replace("*^", f"*~{number}")})
        if answer.status_code != 200:
            return found
        found.append(answer.json()["response"]["data"]["content"])
    raise AssertionError


def written(site: Site, address: str, content: str) -> None:
    """A new version at the address."""
    answer = site.ask("PUT", "/ucxi/v1/put", params={"address": address}, content=content.encode())
    assert answer.status_code < 300, answer.text
