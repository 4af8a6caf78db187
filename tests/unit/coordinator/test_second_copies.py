"""Inputs of tasks and what attempts left are with two members again after one was removed.

The entry `removal` is the core's; where a test needs its effect, the member is taken out of every table.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from agents import Agent, World, world

from chorus.blobs.copies import Part
from chorus.coordinator.matching import LOST
from chorus.executor import copies as module
from chorus.executor import summary
from chorus.executor.copies import ARRIVING, AttemptCopies
from chorus.executor.journal import ARTIFACT_FOLDER, ARTIFACTS, EVENTS, attempt_folder
from chorus.executor.output_service import OutputService
from chorus.executor.room import Room
from chorus.hub import HubError, HubRefused
from chorus.process.logs import Logger
from chorus.table.records import Mesh
from chorus.table.store import TableStore

SOURCE = b"a source"
SHA = hashlib.sha256(SOURCE).hexdigest()


async def raise_version(w: World) -> None:
    """The leader raises the table's version once every agent has said that it knows the next."""
    store = w.leader.parts.store

    def is_raised() -> bool:
        mesh = store.get(Mesh, "mesh")
        return mesh is not None and mesh.version >= 2

    await w.leader.until(is_raised, "version 2")
    await settled(w)


async def settled(w: World) -> None:
    """All tables are up to date."""
    for agent in w.agents.values():
        await agent.until(lambda a=agent: a.parts.store.applied == len(w.mesh.entries), "up to date")  # type: ignore[misc]


async def remove(w: World, name: str) -> None:
    """Stands in for the entry `removal`: the member is in no table any more, and its agent is cut off."""
    peer = w[name].peer
    if peer == w.mesh.leader:
        w.mesh.elect(next(other for other in w.agents if other != name))
        await settled(w)
    for agent in w.agents.values():
        store: TableStore = agent.parts.store
        store._db.execute("DELETE FROM members WHERE peer = ?", (peer,))
        store._cache.clear()
        if agent.name != name:
            w.mesh.cut(agent.name, name)


async def look(w: World, name: str) -> list[Part]:
    await settled(w)
    return await w[name].parts.input_copies.copies.look()


async def submitted(w: World, name: str) -> str:
    """A task whose source is a blob that was uploaded at an agent."""
    await w[name].parts.blobs.put_bytes(SOURCE)
    answer = await w[name].submit(source={"kind": "archive", "sha256": SHA})
    await settled(w)
    return str(answer["task"]["task_id"])


def holders(w: World, name: str, task_id: str, attempt: int | None = None) -> list[str]:
    reader = w[name].parts.input_copies._reader
    return [holder.peer for holder in reader.held.holders(task_id, attempt)]


async def test_an_input_is_with_two_again_after_a_holder_was_removed(tmp_path: Path) -> None:
    async with world(tmp_path, "abcd") as w:
        await raise_version(w)
        task_id = await submitted(w, "b")
        assert holders(w, "a", task_id) == ["peer-b", "peer-a"]
        assert await look(w, "a") == await look(w, "b") == []
        await remove(w, "b")
        assert holders(w, "a", task_id) == ["peer-a"]
        assert await look(w, "c") == []
        assert await look(w, "a") == [Part(task_id)]
        await settled(w)
        first, second = holders(w, "a", task_id)
        assert first == "peer-a"
        assert w[second.removeprefix("peer-")].parts.blobs.has(SHA)
        assert await look(w, "a") == []


async def test_who_fetched_an_input_holds_it_when_no_holder_is_left(tmp_path: Path) -> None:
    async with world(tmp_path, "abcd") as w:
        await raise_version(w)
        task_id = await submitted(w, "b")
        await w["c"].call("blobs.fetch", sha256=SHA, holders=["peer-b"])
        await remove(w, "b")
        w["a"].parts.blobs.remove(SHA)
        w["a"].parts.store._db.execute("UPDATE tasks SET holders = '[]'")
        for name in "cd":
            w[name].parts.store._db.execute("UPDATE tasks SET holders = '[]'")
            w[name].parts.store._cache.clear()
        w["a"].parts.store._cache.clear()
        assert await look(w, "c") == [Part(task_id)]
        await settled(w)
        assert holders(w, "a", task_id) == ["peer-c"]
        assert await look(w, "c") == [Part(task_id)]
        await settled(w)
        assert len(holders(w, "a", task_id)) == 2


async def test_a_copy_that_nobody_took_is_made_later(tmp_path: Path) -> None:
    async with world(tmp_path, "abc") as w:
        await raise_version(w)
        task_id = await submitted(w, "a")
        taker = next(peer for peer in holders(w, "a", task_id) if peer != "peer-a")
        await remove(w, taker.removeprefix("peer-"))
        other = next(name for name in "bc" if f"peer-{name}" != taker)
        w.mesh.cut("a", other)
        assert await look(w, "a") == []
        w.mesh.heal()
        w.mesh.cut("a", taker.removeprefix("peer-"))
        assert await look(w, "a") == [Part(task_id)]
        await settled(w)
        assert holders(w, "a", task_id) == ["peer-a", f"peer-{other}"]


async def test_before_version_2_nothing_is_copied_and_nothing_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chorus.coordinator.leading.next_version", lambda mesh, members: None)
    async with world(tmp_path, "abc") as w:
        await submitted(w, "b")
        await remove(w, "b")
        assert await look(w, "a") == []
        assert not [entry for entry in w.mesh.entries if entry.head["type"] == "holders"]


async def test_a_task_waits_visibly_while_nobody_can_give_its_source(tmp_path: Path) -> None:
    async with world(tmp_path, "abc") as w:
        await raise_version(w)
        for agent in w.agents.values():
            agent.executor.claims = False
            agent.executor.decline = "not now"
        task_id = await submitted(w, "b")
        task = w["a"].task(task_id)
        assert task is not None
        store = w["a"].parts.store
        store._db.execute("UPDATE tasks SET holders = '[\"peer-b\"]'")
        store._cache.clear()
        leading = w["a"].parts.leading
        leading.exclusions.clear()
        await remove(w, "b")
        await w["a"].until(lambda: w["a"].parts.leading.board.any_waiting, "waiting")
        leading.board.refresh(task_id)
        awards = sum(entry.head["type"] == "award" for entry in w.mesh.entries)
        await leading.tick()
        await w["a"].until(lambda: (w["a"].task(task_id) or task).reason == LOST, "the reason")
        assert sum(entry.head["type"] == "award" for entry in w.mesh.entries) == awards


# ---- what attempts left -------------------------------------------------------------------------------


class Executor:
    """The part of an agent's executor that keeps what attempts left."""

    def __init__(self, agent: Agent) -> None:
        process = agent.parts._process
        none: Any = None
        hub: Any = agent.mesh.hub(agent.name, "executor")
        table = agent.parts.input_copies._reader.another()
        log = Logger(logging.getLogger("test-copies"))
        self.agent = agent
        self.tasks = process.settings.paths.tasks
        self.room = Room(
            process.settings,
            process.assignments,
            hub,
            table,
            agent.parts.blobs,
            none,
            none,
            none,
            none,
            none,
            log,
        )
        self.copies = AttemptCopies(self.room, lambda task_id: None, wall_ms=agent.mesh.stamp)
        self.output = OutputService(
            self.tasks,
            lambda task, attempt: None,
            lambda task, attempt: True,
            lambda peer: self.room.table.member(peer) is not None,
            keep=self.copies.take,
        )

    async def start(self) -> None:
        await self.room.hub.offer("output", self.output.handle, peers=True, streams=self.output.stream)

    def folder(self, task_id: str) -> Path:
        return attempt_folder(self.tasks, task_id, 1)


async def executors(w: World) -> dict[str, Executor]:
    made = {name: Executor(agent) for name, agent in w.agents.items()}
    for executor in made.values():
        await executor.start()
    return made


def leave(folder: Path, artifacts: int = 2) -> None:
    """What an attempt leaves."""
    (folder / ARTIFACT_FOLDER).mkdir(parents=True)
    (folder / EVENTS).write_bytes(b'{"id":"1-1","event":"state","data":{"state":"running"}}\n')
    (folder / "stdout").write_bytes(b"said\n")
    (folder / "stderr").write_bytes(b"")
    items = []
    for number in range(artifacts):
        content = b"artifact %d" % number
        (folder / ARTIFACT_FOLDER / f"{number:05d}").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        items.append(
            {
                "path": f"a{number}",
                "size": len(content),
                "sha256": sha256,
                "mode": "0644",
                "file": f"{number:05d}",
            }
        )
    (folder / ARTIFACTS).write_bytes(orjson.dumps({"items": items, "left_out": []}))


async def ended(w: World, made: dict[str, Executor], artifacts: int = 2) -> tuple[str, Executor]:
    """A task that has ended, with a second copy made before its result, and who ran it."""
    task_id = str((await w["a"].submit())["task"]["task_id"])
    task = await w["a"].state(task_id, "claimed")
    runner = next(executor for executor in made.values() if executor.agent.peer == task.agent)
    leave(runner.folder(task_id), artifacts)
    await settled(w)
    peer = await runner.copies.before_result(task_id, 1)
    said = await runner.agent.executor.say(
        "result", task_id=task_id, attempt=1, outcome="completed", exit_code=0
    )
    assert said["accepted"]
    await runner.copies.after_result(task_id, 1, peer)
    await settled(w)
    return task_id, runner


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def copies_of(made: dict[str, Executor], task_id: str) -> set[str]:
    return {executor.agent.peer for executor in made.values() if executor.folder(task_id).is_dir()}


async def test_output_is_with_two_before_the_result_counts_and_again_after_a_removal(tmp_path: Path) -> None:
    async with world(tmp_path, "abcd") as w:
        await raise_version(w)
        made = await executors(w)
        task_id, runner = await ended(w, made)
        at = copies_of(made, task_id)
        assert len(at) == 2
        assert set(holders(w, "a", task_id, 1)) == at
        (other,) = (
            executor for executor in made.values() if executor.agent.peer in at and executor is not runner
        )
        assert content(other.folder(task_id)) == content(runner.folder(task_id))
        for executor in made.values():
            assert await executor.copies.look() == []
        await remove(w, runner.agent.name)
        left = [executor for executor in made.values() if executor is not runner]
        for executor in left:
            assert await executor.copies.look() == ([Part(task_id, 1)] if executor is other else [])
        await settled(w)
        there = copies_of({e.agent.name: e for e in left}, task_id)
        assert len(there) == 2
        assert set(holders(w, left[0].agent.name, task_id, 1)) == there
        # The copy is served like the executor's own.
        reader = w.mesh.hub(left[0].agent.name, "api")
        head = {"task_id": task_id, "attempt": 1, "path": "a1"}
        for peer in there:
            async with await reader.open_stream("output", "artifact", head, peer=peer) as stream:
                assert await stream.read_all(1000) == b"artifact 1"
            async with await reader.open_stream("output", "events", head, peer=peer) as stream:
                assert b'"over":{"events":1,"ended":null}' in await stream.read_all(1000)


async def test_who_got_a_copy_that_nobody_named_names_itself(tmp_path: Path) -> None:
    async with world(tmp_path, "abc") as w:
        await raise_version(w)
        made = await executors(w)
        task_id = str((await w["a"].submit())["task"]["task_id"])
        task = await w["a"].state(task_id, "claimed")
        runner = next(executor for executor in made.values() if executor.agent.peer == task.agent)
        leave(runner.folder(task_id))
        await settled(w)
        peer = await runner.copies.before_result(task_id, 1)
        await runner.agent.executor.say(
            "result", task_id=task_id, attempt=1, outcome="completed", exit_code=0
        )
        await settled(w)
        # Here its agent dies for good, before it has said who took the copy.
        assert peer is not None
        await remove(w, runner.agent.name)
        other = made[peer.removeprefix("peer-")]
        assert await other.copies.look() == [Part(task_id, 1)]
        await settled(w)
        assert holders(w, other.agent.name, task_id, 1) == [peer]
        assert await other.copies.look() == [Part(task_id, 1)]


async def test_a_list_of_artifacts_too_long_for_an_entry_comes_as_a_blob_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "LISTED_MAX", 1)
    async with world(tmp_path, "ab") as w:
        await raise_version(w)
        made = await executors(w)
        task_id, runner = await ended(w, made)
        (other,) = (executor for executor in made.values() if executor is not runner)
        items = orjson.loads((runner.folder(task_id) / ARTIFACTS).read_bytes())["items"]
        named = [{key: item[key] for key in ("path", "size", "sha256", "mode")} for item in items]
        listed = hashlib.sha256(summary.artifact_list(named, [])).hexdigest()
        assert other.room.blobs.has(listed)


async def test_an_agent_alone_counts_its_results(tmp_path: Path) -> None:
    async with world(tmp_path, "a") as w:
        await raise_version(w)
        made = await executors(w)
        task_id, runner = await ended(w, made)
        assert holders(w, "a", task_id, 1) == [runner.agent.peer]
        assert await runner.copies.look() == []


async def test_a_member_that_does_not_answer_holds_no_result_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    async with world(tmp_path, "ab") as w:
        await raise_version(w)
        made = await executors(w)

        async def silent(request: Any, stream: Any) -> None:
            await asyncio.Event().wait()

        for executor in made.values():
            await executor.room.hub.offer("output", executor.output.handle, peers=True, streams=silent)
        task_id, runner = await ended(w, made)
        assert copies_of(made, task_id) == {runner.agent.peer}
        # It is made as soon as somebody takes it.
        for executor in made.values():
            await executor.start()
        assert await runner.copies.look() == [Part(task_id, 1)]
        assert len(copies_of(made, task_id)) == 2


def _said(files: Any) -> bytes:
    return orjson.dumps(files) + b"\n"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (_said([["../x", 1]]) + b"x", "invalid"),
        (_said([["/etc/x", 1]]) + b"x", "invalid"),
        (_said([["artifacts/../x", 1]]) + b"x", "invalid"),
        (_said([["artifacts/00000\n", 1]]) + b"x", "invalid"),
        (_said([["stdout", -1]]), "invalid"),
        (_said([["stdout", 1.5]]), "invalid"),
        (_said([["stdout", True]]), "invalid"),
        (_said([["stdout", 1], ["stdout", 1]]) + b"xx", "invalid"),
        (_said({"a": 1}), "invalid"),
        (_said(None), "invalid"),
        (b"[[" * 1000 + b"\n", "invalid"),
        (b"no line", "invalid"),
        (_said([["stdout", 5]]) + b"x", "invalid"),
        (_said([["stdout", 2**40]]), "too_large"),
        (_said([[f"artifacts/{n}", 0] for n in range(20_000)]), "too_large"),
        (_said([["artifacts.json", 2]]) + b"{}", "tampered"),
        (_said([["artifacts.json", 27], ["artifacts/0", 1]]) + b'{"items":[],"left_out":1}', "invalid"),
        (_said([["artifacts.json", 43]]) + b'{"items":[{"path":"a","size":1,"mode":"x"}]', "tampered"),
    ],
)  # fmt: skip
async def test_a_copy_that_is_none_leaves_nothing(tmp_path: Path, sent: bytes, code: str) -> None:
    async with world(tmp_path, "ab") as w:
        await raise_version(w)
        made = await executors(w)
        task_id = str((await w["a"].submit())["task"]["task_id"])
        task = await w["a"].state(task_id, "claimed")
        await settled(w)
        runner = next(executor for executor in made.values() if executor.agent.peer == task.agent)
        (other,) = (executor for executor in made.values() if executor is not runner)
        head = {"task_id": task_id, "attempt": 1}
        stream = await runner.room.hub.open_stream("output", "keep", head, peer=other.agent.peer)
        async with stream:
            await stream.write(sent)
            await stream.end()
            with pytest.raises(HubError) as caught:
                await stream.read_all(1000)
        assert caught.value.code == code
        assert not other.folder(task_id).exists()
        assert not list((other.tasks / ARRIVING).glob("*"))


async def test_only_who_holds_it_gives_a_copy(tmp_path: Path) -> None:
    async with world(tmp_path, "abc") as w:
        await raise_version(w)
        made = await executors(w)
        task_id, runner = await ended(w, made)
        (third,) = (e for e in made.values() if e.agent.peer not in copies_of(made, task_id))
        for head in ({"task_id": task_id, "attempt": 1}, {"task_id": task_id, "attempt": 2}):
            stream = await third.room.hub.open_stream("output", "keep", head, peer=runner.agent.peer)
            async with stream:
                with pytest.raises(HubRefused, match="only the attempt's executor"):
                    await stream.read_all(1000)


async def test_a_full_disk_takes_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=8))
    async with world(tmp_path, "ab") as w:
        await raise_version(w)
        made = await executors(w)
        task_id, runner = await ended(w, made)
        assert copies_of(made, task_id) == {runner.agent.peer}
