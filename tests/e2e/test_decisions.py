"""Decisions among three real agents: found by words, in the context of tasks like them, voted on, checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Agent, Mesh
from .test_run import until

pytestmark = pytest.mark.e2e


def ctl(mesh: Mesh, *words: str) -> Any:
    return json.loads(mesh.ctl(*words, "--json").stdout)


def ran(mesh: Mesh, title: str, project: str = "words") -> dict[str, Any]:
    """A task that ran, once its record is listed by every agent."""
    mesh.ctl("run", "--title", title, "--project", project, "--", "wc", "-w", "/etc/hostname")
    task = next(task for task in mesh.tasks() if task["title"] == title)
    for agent in mesh.agents:
        until(lambda agent=agent: agent.get("/api/v1/decisions", task_id=task["task_id"]).json()["items"])
    return task


def found(agent: Agent, text: str) -> list[str]:
    items = agent.get("/api/v1/decisions", text=text).json().get("items", ())
    return [item["task_id"] for item in items]


def test_a_decision_from_its_task_to_its_vote(mesh: Mesh) -> None:
    first = ran(mesh, "count the words of a host")
    for agent in mesh.agents:
        assert until(lambda agent=agent: found(agent, "words host")) == [first["task_id"]]
    second = ran(mesh, "count the words of another host")
    # What the agent was given with it, in its story, its result, and over HTTP on every agent.
    row = until(lambda: mesh.agents[0].get("/api/v1/decisions", task_id=first["task_id"]).json()["items"])[0]
    task = mesh.agents[0].get(f"/api/v1/tasks/{second['task_id']}").json()
    assert task["result"]["context"] == [row["address"]]
    for agent in mesh.agents:
        (item,) = agent.get("/api/v1/context", task=second["task_id"]).json()["items"]
        assert (item["hash"], item["why"][0]) == (row["hash"], "project")
    shown = ctl(mesh, "decision", "show", row["hash"])
    assert shown["inputs"]["source_sha256"] == ""
    assert shown["inputs"]["image_digest"]
    assert ctl(mesh, "decision", "verify", "--all") == {"genuine": 2, "unreadable": 0, "not_genuine": 0}
    assert len(ctl(mesh, "decisions", "--text", "words host", "--project", "words")["items"]) == 2
    # Two of three members settle it.
    for agent in mesh.agents[:2]:
        answer = agent.post(f"/api/v1/decisions/{row['hash']}/votes", {"vote": "reject", "by": "ann"})
        assert answer.status_code == 201, answer.text
    ballot = until(lambda: (said := ctl(mesh, "vote", row["hash"])) and said["record"] and said)
    assert (ballot["state"], ballot["reject"]) == ("rejected", 2)
    graph = until(
        lambda: (
            (said := json.loads(mesh.ctl("decisions", "--graph", "json", "--kind", "vote").stdout))["edges"]
            and said
        )
    )
    assert [edge["link"] for edge in graph["edges"]] == ["derived_from"]
    assert ctl(mesh, "decision", "verify", ballot["record"])["record"]["decided"]["outcome"] == "rejected"
    third = ran(mesh, "count the words of a third host")
    items = mesh.agents[2].get("/api/v1/context", task=third["task_id"]).json()["items"]
    assert row["hash"] not in [item["hash"] for item in items]
