"""All sixteen metrics of the contract move when their subject does, over three real agents."""

from __future__ import annotations

import pytest

from chorus.process.metrics import CONTRACT

from .conftest import Mesh
from .test_run import until

pytestmark = pytest.mark.e2e


def total(mesh: Mesh, name: str) -> float:
    return sum(agent.metrics().get(name, 0.0) for agent in mesh.agents)


def test_every_name_is_on_every_page(mesh: Mesh) -> None:
    for agent in mesh.agents:
        page = agent.metrics()
        for name in CONTRACT:
            assert name in page or f"{name}_count" in page, name


def test_tasks_and_sandboxes_move(mesh: Mesh) -> None:
    before = {
        name: total(mesh, name) for name in ("chorus_tasks_completed_total", "chorus_tasks_failed_total")
    }
    durations = total(mesh, "chorus_task_duration_seconds_count")
    running = mesh.popen("run", "--", "sh", "-c", "echo up; while :; do :; done")
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        for name in (
            "chorus_tasks_active",
            "chorus_sandbox_containers_active",
            "chorus_sandbox_memory_usage_bytes",
        ):
            until(lambda name=name: total(mesh, name) > 0)
        until(lambda: total(mesh, "chorus_sandbox_cpu_usage") > 0.1)
    finally:
        # Its task goes with it.
        running.terminate()
    until(lambda: total(mesh, "chorus_tasks_active") == 0)
    mesh.ctl("run", "--", "true")
    mesh.ctl("run", "--", "false", check=False)
    until(lambda: total(mesh, "chorus_tasks_completed_total") > before["chorus_tasks_completed_total"])
    until(lambda: total(mesh, "chorus_tasks_failed_total") > before["chorus_tasks_failed_total"])
    until(lambda: total(mesh, "chorus_task_duration_seconds_count") > durations)


def test_the_network_moves(mesh: Mesh) -> None:
    names = (
        "chorus_pubsub_messages_sent_total",
        "chorus_pubsub_messages_received_total",
        "chorus_dht_queries_total",
    )
    before = {name: total(mesh, name) for name in names}
    misses = total(mesh, "chorus_dht_cache_misses_total")
    mesh.ctl("run", "--title", "network", "--", "true")
    task = next(task for task in mesh.tasks() if task["title"] == "network")
    reader = next(agent for agent in mesh.agents if agent.agent_id != task["agent_id"])
    listed = until(lambda: reader.get("/api/v1/decisions", task_id=task["task_id"]).json()["items"])
    for name in names:
        until(lambda name=name: total(mesh, name) > before[name])
    for _ in range(2):
        assert reader.get(f"/api/v1/decisions/{listed[0]['hash']}").status_code == 200
    until(lambda: total(mesh, "chorus_dht_cache_misses_total") > misses)
    until(lambda: reader.metrics()["chorus_dht_cache_hits_total"] > 0)
    assert all(agent.metrics()["chorus_peers_connected"] >= 2 for agent in mesh.agents)


def test_secrets_and_licences_move(mesh: Mesh) -> None:
    before = total(mesh, "chorus_shhh_findings_total")
    # Put together by the command, so that no file of the project holds it.
    done = mesh.ctl("run", "--", "sh", "-c", "printf 'AKIA%s\\n' QWERTYUIOPASDFGH")
    assert b"QWERTYUIOPASDFGH" not in done.stdout
    until(lambda: total(mesh, "chorus_shhh_findings_total") > before)
    assert all(agent.metrics()["chorus_license_checks_total"] >= 1 for agent in mesh.agents)
    assert total(mesh, "chorus_license_failures_total") == 0
