"""What the tests look at from outside: processes, their memory, and whether work goes on."""

from __future__ import annotations

from pathlib import Path

from e2e.conftest import Agent, Mesh
from e2e.test_run import until


def rss_bytes(pid: int) -> int:
    """What a process holds in memory; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def all_processes(mesh: Mesh) -> list[dict[str, int]]:
    """The pids of each agent's processes by name."""
    return [agent.processes() for agent in mesh.agents]


def completed(agent: Agent, task_id: str) -> bool:
    """Whether the task ended with success."""
    return bool(agent.get(f"/api/v1/tasks/{task_id}").json()["state"] == "completed")


def work_goes_on(mesh: Mesh) -> None:
    """A task runs through each agent."""
    for agent in mesh.agents:
        answer = agent.post("/api/v1/tasks", {"title": "usual", "commands": ["echo usual"]})
        assert answer.status_code == 201, answer.text
        task_id = answer.json()["task_id"]
        until(lambda agent=agent, task_id=task_id: completed(agent, task_id))
