"""A result becomes one record in the DHT, the table and the log, wherever its way there is cut off."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from life import prepared, published, room_of, state, watched
from mesh import DEADLINE_S, TIMING, Agent, mesh, until

from chorus import decisions
from chorus.hub import Hub

HERE = Path(__file__).parent


async def life(folder: Path, kill_after: int) -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, what is there, and what was said of the fault."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "life.py"), str(folder), str(kill_after),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(DEADLINE_S):
        out, errors = await process.communicate()
    code = await process.wait()
    return code, json.loads(out) if code == 0 else None, errors.decode()


def check(found: dict[str, Any] | None) -> None:
    assert found is not None
    (name,) = found["hashes"]
    assert found["logged"] == [["decision_published", name], ["task_completed", name]]
    assert (found["state"], found["decision"]) == ("completed", found["addresses"][0])
    assert found["versions"] == [1]


@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.heavy)])
async def test_killed_after_a_step_and_once_more(tmp_path: Path, stride: int) -> None:
    code, found, errors = await life(tmp_path / "whole", 0)
    assert code == 0, errors
    check(found)
    assert found is not None
    for step in range(1, found["steps"] + 1, stride):
        folder = tmp_path / str(step)
        code, _, errors = await life(folder, step)
        assert code == -signal.SIGKILL, errors
        assert f"killed after step {step}" in errors
        # Some lives end twice on the way.
        if step % 2:
            code, _, errors = await life(folder, 1)
            assert code in (0, -signal.SIGKILL), errors
        code, found, errors = await life(folder, 0)
        assert code == 0, f"after step {step}: {errors}"
        check(found)


class NodeAlone:
    """The node process, killed and started again."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder, self.socket = folder, socket
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "node_alone.py"), str(self.folder), str(self.socket),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            assert (await self.process.stdout.readline()).strip() == b"up"

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


class OnNode(Agent):
    """An agent whose core is in another process."""

    def __init__(self, folder: Path, socket: Path) -> None:
        super().__init__("a", folder)
        self._socket = socket
        self._own: Hub | None = None

    @property
    def hub(self) -> Hub:
        assert self._own is not None
        return self._own

    async def process_hub(self, name: str) -> Hub:
        hub = await Hub.connect(self._socket, name, retry_for=DEADLINE_S)
        self._hubs.append(hub)
        return hub

    async def begin(self) -> None:
        self._own = await self.process_hub("test")


@pytest.mark.parametrize("every", [1, 2, 3])
async def test_the_node_is_killed_between_steps(
    tmp_path: Path, short_dir: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    node = NodeAlone(tmp_path / "core", short_dir / "hub.sock")
    await node.start()
    agent = OnNode(tmp_path, short_dir / "hub.sock")
    try:
        await agent.begin()
        await agent.hub.raft_found(TIMING, {"agent_id": "a"})
        await agent.start()
        await prepared(agent)
        room = room_of(agent, await agent.process_hub("publisher"))
        loop, steps = asyncio.get_running_loop(), 0

        async def again() -> None:
            await node.kill()
            await node.start()

        def after_step(name: str) -> Any:
            nonlocal steps
            steps += 1
            if steps % every:
                return None
            if name in ("advance", "done", "_write_whole"):
                # From a thread, which does not wait for it.
                asyncio.run_coroutine_threadsafe(again(), loop).result(DEADLINE_S)
                return None
            return again()

        watched(room, after_step, monkeypatch.setattr)
        async with asyncio.timeout(DEADLINE_S * 3):
            await published(room)
        found = json.loads(json.dumps(await state(agent)))
        check(found)
        assert steps >= 10
    finally:
        await agent.stop()
        await node.kill()


async def test_another_member_lists_the_record_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh(tmp_path, "ab") as m:
        agent, hostile = m["a"], m["b"]
        hostile.accepting = False
        await hostile.restart()
        await until(lambda: not agent.table.member(hostile.hub.peer_id).accepting)  # type: ignore[union-attr]
        await prepared(agent)
        room = room_of(agent, await agent.process_hub("publisher"))
        taken: list[str] = []

        async def take() -> None:
            (item,) = room.outbox.items()
            taken.append(decisions.hash_of(item.record["signed"].encode()))
            said = await hostile.propose("decision", hash=taken[0], kind="hmmm_outcome")
            assert said["accepted"], said

        def after_step(name: str) -> Any:
            return take() if name == "dht_put" and not taken else None

        watched(room, after_step, monkeypatch.setattr)
        async with asyncio.timeout(DEADLINE_S):
            await published(room)
        task_id = (agent.folder / "task").read_text()
        (row,) = agent.table.decisions(task_id=task_id).items
        assert (row.author, row.hash in taken) == (agent.hub.peer_id, False)
        await decisions.fetch(agent.hub, row.hash, listed=row)
        task = agent.table.task(task_id)
        assert task is not None
        assert task.decision == row.address
        false = agent.table.decision(taken[0])
        assert false is not None
        with pytest.raises(decisions.DecisionError):
            await decisions.fetch(agent.hub, false.hash, listed=false)
