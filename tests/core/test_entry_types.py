"""The agents' core takes the types of entries that the table knows; a library user's takes any."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from chorus._core import Core
from chorus.config import MeshSettings
from chorus.core.config import core_config
from chorus.hub import Hub, HubError, HubInvalid
from chorus.table.entry_types import OF_THE_CORE, PROPOSABLE
from chorus.wire.ids import new_id


async def test_the_core_refuses_types_outside_its_list(short_dir: Path) -> None:
    config = core_config(
        data_dir=short_dir / "data",
        hub=short_dir / "hub.sock",
        cluster_secret=b"x" * 32,
        entry_types=PROPOSABLE,
    )
    core = await asyncio.to_thread(Core.start, config)
    try:
        hub = await Hub.connect(short_dir / "hub.sock", "test", retry_for=20)
        await hub.raft_found(MeshSettings(), {})
        taken = await hub.propose("cancel", {"task_id": new_id()}, timeout=20)
        with pytest.raises(HubInvalid, match="news"):
            await hub.propose("news", {}, timeout=20)
        for type in OF_THE_CORE:
            with pytest.raises(HubError, match=type):
                await hub.propose(type, {}, timeout=20)
        assert (await hub.propose("retry", {"task_id": new_id()}, timeout=20)).index == taken.index + 1
        await hub.close()
    finally:
        await asyncio.to_thread(core.stop)


def test_without_a_list_any_type_is_taken(tmp_path: Path) -> None:
    config = core_config(data_dir=tmp_path, hub=tmp_path / "hub.sock", cluster_secret=b"x" * 32)
    assert "entry_types" not in orjson.loads(config)
