"""An attempt's output over the network: for members, and for nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from chorus.executor.journal import Journal, attempt_folder
from chorus.executor.output_service import OutputService
from chorus.hub import HubRefused
from chorus.testing.fake_hub import FakeMesh
from chorus.wire.ids import new_id


async def test_strangers_are_served_no_output(tmp_path: Path) -> None:
    task = new_id()
    folder = attempt_folder(tmp_path, task, 1)
    folder.mkdir(parents=True)
    journal = Journal(folder, 1)
    journal.event("state", {"state": "running"})
    journal.close()
    mesh = FakeMesh()
    owner, member, stranger = (mesh.hub(name, "executor") for name in ("a", "b", "s"))
    service = OutputService(
        tmp_path, lambda task, attempt: None, lambda task, attempt: True, {"peer-b"}.__contains__
    )
    await owner.offer("output", service.handle, peers=True, streams=service.stream)
    head = {"task_id": task, "attempt": 1}
    with pytest.raises(HubRefused, match="only members"):
        await stranger.request(owner.peer_id, "output", "artifacts", head)
    assert (await member.request(owner.peer_id, "output", "artifacts", head)).head["items"] == []
    # The agent's own api asks without a peer.
    assert (await owner.call_service("output", "artifacts", head)).head["items"] == []
    for method in ("events", "logs", "artifact"):
        async with await stranger.open_stream("output", method, head, peer=owner.peer_id) as stream:
            with pytest.raises(HubRefused, match="only members"):
                await stream.read_all(10_000)
    async with await member.open_stream("output", "events", head, peer=owner.peer_id) as stream:
        assert b"running" in await stream.read_all(10_000)
