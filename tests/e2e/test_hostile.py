"""A task that means harm is contained and its end named; a neighbour on the same agent ends as usual."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chorus.testing import hostile_archives

from .conftest import GENEROUS_S, Mesh, brought_up
from .test_run import until

pytestmark = [pytest.mark.e2e, pytest.mark.heavy]

ENDED = ("completed", "failed", "cancelled")
SMALL = {"memory_mb": 64, "disk_mb": 32, "pids": 32}


@pytest.fixture(scope="module")
def alone(needs: None) -> Iterator[Mesh]:
    """One agent: whoever is on it is a neighbour."""
    yield from brought_up(1)


def send(mesh: Mesh, task: dict[str, Any], source: bytes | None = None) -> httpx.Response:
    agent = mesh.agents[0]
    headers = {"Authorization": f"Bearer {agent.token}"}
    whole = {"resources": SMALL, "language": "python", "max_attempts": 1, **task}
    body: dict[str, Any] = {"json": whole}
    if source is not None:
        body = {"files": {"task": (None, json.dumps(whole).encode()), "source": ("source.tar", source)}}
    return httpx.post(
        f"{agent.api}/api/v1/tasks", headers=headers, timeout=GENEROUS_S, trust_env=False, **body
    )


def submit(mesh: Mesh, task: dict[str, Any]) -> str:
    answer = send(mesh, task)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["task_id"])


def ended(mesh: Mesh, task_id: str) -> dict[str, Any]:
    def look() -> Any:
        task = mesh.agents[0].get(f"/api/v1/tasks/{task_id}").json()
        return task["state"] in ENDED and task

    found: dict[str, Any] = until(look)
    return found


def beside_a_neighbour(mesh: Mesh, command: str, **more: Any) -> dict[str, Any]:
    """How the hostile task ended, once a neighbour that ran beside it has said its word."""
    hostile = submit(mesh, {"title": "hostile", "commands": [command], "timeout_s": 20, **more})
    until(
        lambda: mesh.agents[0].get(f"/api/v1/tasks/{hostile}").json()["state"] not in ("pending", "claimed")
    )
    neighbour = mesh.ctl("run", "--language", "python", "--", "python3", "-c", "print(6*7)")
    assert neighbour.stdout == b"42\n"
    return ended(mesh, hostile)


def test_a_fork_bomb(alone: Mesh) -> None:
    task = beside_a_neighbour(alone, "bomb() { bomb | bomb & }; bomb; sleep 600")
    assert task["state"] == "failed"
    assert task["result"]["ended_by"] in ("pids", "timeout")
    assert "process" in task["reason"]


def test_a_memory_bomb(alone: Mesh) -> None:
    task = beside_a_neighbour(alone, "python3 -c 'held = [bytearray(1 << 20) for _ in range(1 << 20)]'")
    assert (task["state"], task["result"]["ended_by"]) == ("failed", "out_of_memory")


@pytest.mark.parametrize("folder", ["/workspace", "/tmp"])
def test_a_disk_filler(alone: Mesh, folder: str) -> None:
    task = beside_a_neighbour(alone, f"cat /dev/zero > {folder}/filler")
    assert (task["state"], task["result"]["ended_by"]) == ("failed", "disk")


def test_an_endless_line(alone: Mesh) -> None:
    task = beside_a_neighbour(alone, "tr '\\0' x < /dev/zero")
    assert (task["state"], task["result"]["ended_by"]) == ("failed", "timeout")
    assert "event: gap" in alone.agents[0].get(f"/api/v1/tasks/{task['task_id']}/events").text


def test_a_gigabyte_of_output(alone: Mesh) -> None:
    task = beside_a_neighbour(alone, "yes | head -c 1000000000", timeout_s=GENEROUS_S)
    assert (task["state"], task["result"]["exit_code"]) == ("completed", 0)
    assert "event: gap" in alone.agents[0].get(f"/api/v1/tasks/{task['task_id']}/events").text
    kept = alone.agents[0].data_dir / "tasks" / task["task_id"]
    assert sum(file.stat().st_size for file in kept.rglob("*") if file.is_file()) < 300_000_000


def test_patterns_that_would_backtrack(alone: Mesh) -> None:
    deep = "/".join("a" * 30)
    task = beside_a_neighbour(
        alone,
        f"mkdir -p {deep} && touch {deep}/{'a' * 100} {deep}/x",
        artifacts=["**/" * 12 + "x", "**/a" * 12 + "y"],
    )
    assert (task["state"], task["attempt"]) == ("completed", 1)
    assert [item["path"] for item in task["result"]["artifacts"]] == [f"{deep}/x"]


@pytest.mark.parametrize("name", ["gnu_long_name", "pax_header", "content", "many_links"])
def test_a_small_upload_that_unpacks_to_very_much(alone: Mesh, name: str) -> None:
    answer = send(alone, {"title": "bomb", "commands": ["true"]}, hostile_archives.BOMBS[name]())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "source"
    assert alone.ctl("run", "--", "echo", "fine").stdout == b"fine\n"


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../outside", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "../../etc/passwd"),
        ("hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_a_hostile_archive(alone: Mesh, name: str, kind: bytes, target: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    answer = send(alone, {"title": "archive", "commands": ["echo ran"]}, packed.getvalue())
    assert answer.status_code == 422
    assert name in answer.json()["errors"][0]["message"]
    assert alone.ctl("run", "--", "echo", "fine").stdout == b"fine\n"
