"""What the executor's parts share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chorus.config import Assignment, MeshSettings
from chorus.config.load import load_settings
from chorus.executor.room import Room
from chorus.hub import HubNoMesh
from chorus.process import Assignments
from chorus.table.entries import Entry
from chorus.table.reader import TableReader
from chorus.table.store import TableStore
from chorus.testing.fake_hub import FakeMesh


def room_of(
    path: Path, own_lease: str, mesh: FakeMesh | None = None, assignment: Assignment | None = None
) -> Room:
    settings = load_settings({"CHORUS_LICENSE_ID": "dev-test", "CHORUS_TASK_LEASE": own_lease})
    unused: Any = None
    return Room(
        settings=settings,
        assignments=Assignments(assignment or Assignment()),
        hub=(mesh or FakeMesh()).hub("a", "executor"),
        table=TableReader(path),
        blobs=unused,
        outbox=unused,
        backend=unused,
        images=unused,
        ceiling=unused,
        redactor=unused,
        log=unused,
    )


@pytest.mark.parametrize(
    ("meshs", "lease_s"), [(MeshSettings().to_entry(), 30.0), ({"lease_ms": 45_000}, 45.0), ({}, 30.0)]
)
def test_an_agent_with_another_lease_goes_by_the_meshs(
    tmp_path: Path, meshs: dict[str, Any], lease_s: float
) -> None:
    path = tmp_path / "table.sqlite"
    store = TableStore(path)
    body = {"mesh": "m", "settings": meshs, "agent": {"agent_id": "a"}}
    store.apply_batch([Entry(1, 1, "found", "id", "peer-a", 0, body)])
    assert room_of(path, "5m").lease_s == lease_s


def test_without_a_mesh_there_is_no_lease(tmp_path: Path) -> None:
    with pytest.raises(HubNoMesh):
        _ = room_of(tmp_path / "table.sqlite", "5m").lease_s


@pytest.mark.parametrize("type", ["task_complete", "task_failed"])
async def test_the_end_of_an_attempt_is_told_to_all_and_to_whom_the_agent_reports(
    tmp_path: Path, type: str
) -> None:
    mesh = FakeMesh()
    for reports_to, topics in (("", []), ("lead", ["chorus/reports/lead"])):
        room = room_of(tmp_path / "table.sqlite", "5m", mesh, Assignment(reports_to=reports_to))
        mesh.published.clear()
        await room.tell(type, {"task_id": "t"})
        assert [item[1:] for item in mesh.published] == [
            (topic, type, {"task_id": "t"}) for topic in ("chorus/coordination/v1", *topics)
        ]
