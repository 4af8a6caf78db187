"""What an agent carried along from another mesh comes into the table of this one, through any kill."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any

import orjson
import pytest
from agents import Agent, World, world

from chorus.config import Assignment, Paths
from chorus.coordinator import profile
from chorus.coordinator.importing import Importing
from chorus.coordinator.proposals import Settled
from chorus.hub import HubError, HubTimeout, HubUnavailable
from chorus.process import Process
from chorus.process.logs import Logger
from chorus.table.carried import Header, Line
from chorus.table.records import Ballot, Decision, Member, Mesh, Task, Version
from chorus.wire.ids import encode, new_id

B = "peer-b"
ENDED, WAITING = new_id(1), new_id(2)
ADDRESS = "ucxl://b:agent@p:t/*^/notes"
DECISION = "d" * 64
VERSIONS = 12
STORY: dict[str, Any] = {
    "task": {"title": "t", "commands": ["true"]}, "state": "announced", "submitter": B, "submitted_by": "b",
    "vouched_by": B, "created_at": 1,
}  # fmt: skip
ENDED_STORY: dict[str, Any] = {
    **STORY, "state": "completed", "attempt": 1, "agent": B, "finished_at": 2,
    "attempts": [{"attempt": 1, "agent": B, "state": "completed", "awarded_at": 1, "finished_at": 2,
                  "result": {"outcome": "completed", "summary": "done"}}],
}  # fmt: skip
BALLOT: dict[str, Any] = {
    "round": 1, "quorum": 1, "voters": [B], "opened_at": 1, "closes_at": 2, "state": "approved",
    "ended_at": 2, "concluded": "e" * 64, "votes": [{"round": 1, "peer": B, "choice": "approve", "at_ms": 1}],
}  # fmt: skip


def line(type: str, **body: Any) -> Line:
    """A line whose id follows from what it says."""
    return Line(encode(hashlib.sha256(orjson.dumps([type, body])).digest()[:16]), type, body)


def version(number: int) -> Line:
    """A version that B wrote."""
    content = {"hash": f"{number:064x}", "author": B, "at_ms": number}
    return line("import_version", origin="m1", address=ADDRESS, number=number, **content)


def lines() -> list[Line]:
    """A task in two parts, one that waits, a record with its vote, and versions of one address."""
    text = orjson.dumps(ENDED_STORY).decode()
    return [
        line("import_part", of=ENDED, n=0, text=text[:100]),
        line("import_part", of=ENDED, n=1, text=text[100:]),
        line("import_task", task_id=ENDED, parts=2),
        line("import_task", task_id=WAITING, story=STORY),
        line("import_decision", hash=DECISION, kind="task_result", task_id=ENDED, author=B, at_ms=2),
        line("import_ballot", hash=DECISION, story=BALLOT),
        *(version(number) for number in range(1, VERSIONS + 1)),
    ]


def carry(path: Path, said: list[Line], *, recovers: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(Header("m1", recovers).encode() + b"".join(one.encode() for one in said))


def paths_of(agent: Agent) -> Paths:
    return Paths(agent.folder / agent.name, agent.folder / agent.name)


async def restart(agent: Agent) -> None:
    await agent.stop()
    await agent.start()
    await agent.until(lambda: "coordinator" in agent.mesh.agent(agent.name).offers)


async def all_in(agent: Agent) -> None:
    await agent.until(lambda: not agent.parts.importing.open, "everything is in the table")


def check_all(agent: Agent) -> None:
    store = agent.parts.store
    task = store.get(Task, ENDED)
    assert task is not None
    assert task.state == "completed"
    assert store.get(Task, WAITING) is not None
    assert store.get(Decision, DECISION) is not None
    ballot = store.get(Ballot, DECISION)
    assert ballot is not None
    assert ballot.approve == 1
    versions = [store.get(Version, ADDRESS, n) for n in range(1, VERSIONS + 2)]
    hashes = [version and version.hash for version in versions]
    assert hashes == [*(f"{n:064x}" for n in range(1, VERSIONS + 1)), None]


async def test_what_was_carried_along_is_in_every_table_and_the_file_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        agent = mesh["b"]
        carry(paths_of(agent).carried, lines())
        await restart(agent)
        await all_in(agent)
        check_all(agent)
        assert not paths_of(agent).carried.exists()
        last = agent.parts.store.applied
        for other in mesh.agents.values():
            await other.parts.follower.reached(last)
            check_all(other)
        assert (await agent.call("health"))["detail"] == "applying"
        # An open task of the other mesh is awarded and ends here.
        await mesh["a"].until(lambda: any(e.awards for e in (x.executor for x in mesh.agents.values())))


@pytest.mark.parametrize("kill_at", range(1, 2 * len(lines()), 3))
async def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path: Path, kill_at: int) -> None:
    async with world(tmp_path, "ab") as mesh:
        agent = mesh["b"]
        carry(paths_of(agent).carried, lines())
        killed, seen = asyncio.Event(), 0
        await agent.stop()
        append = mesh.mesh.append

        def dying(type: str, author: str, body: Any, entry_id: str | None = None) -> Any:
            nonlocal seen
            if type.startswith("import_") and not killed.is_set():
                seen += 1
                # Before the entry is committed, or after it.
                if seen == (kill_at + 1) // 2:
                    killed.set()
                    agent.running.cancel()
                    if kill_at % 2:
                        raise HubUnavailable("the process is gone")
            return append(type, author, body, entry_id)

        mesh.mesh.append = dying  # type: ignore[method-assign]
        await agent.start()
        await killed.wait()
        await restart(agent)
        await all_in(agent)
        check_all(agent)
        assert not paths_of(agent).carried.exists()


async def test_all_of_it_again_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "ab") as mesh:
        agent = mesh["b"]
        for _ in range(2):
            carry(paths_of(agent).carried, lines())
            await restart(agent)
            await all_in(agent)
            check_all(agent)
        entries = [entry.head["type"] for entry in mesh.mesh.entries]
        assert entries.count("import_version") == VERSIONS


async def test_it_waits_for_the_version_of_the_table_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(profile, "TABLE_VERSION", 1)
        async with world(tmp_path, "ab") as mesh:
            agent = mesh["b"]
            carry(paths_of(agent).carried, lines())
            await restart(agent)
            health = await agent.call("health")
            assert "mesh m1 waits until all members of this mesh know version 2" in health["detail"]
            older.undo()
            for each in mesh.agents.values():
                each.parts.profile.refresh()
            await all_in(agent)
            check_all(agent)


async def held_back(mesh: World, agent: Agent, *, recovers: bool) -> None:
    """The agent has something to bring along and cannot yet."""
    mesh_row = agent.parts.store.get(Mesh, "mesh")
    assert mesh_row is not None
    assert mesh_row.version == 1
    carry(paths_of(agent).carried, lines(), recovers=recovers)
    await restart(agent)


async def test_while_a_mesh_is_recovered_nothing_new_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(profile, "TABLE_VERSION", 1)
        async with world(tmp_path, "ab") as mesh:
            agent = mesh["b"]
            await held_back(mesh, agent, recovers=True)
            with pytest.raises(HubError, match="recovers its mesh; try again later") as refused:
                await agent.submit()
            assert refused.value.code == "unavailable"
            with pytest.raises(HubError, match="recovers its mesh"):
                await agent.executor.say("version", address=ADDRESS, hash="9" * 64)
            older.undo()
            for each in mesh.agents.values():
                each.parts.profile.refresh()
            await all_in(agent)
            assert (await agent.submit())["created"]


async def test_a_result_waits_for_its_task_to_be_brought_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(profile, "TABLE_VERSION", 1)
        async with world(tmp_path, "ab") as mesh:
            agent = mesh["b"]
            await held_back(mesh, agent, recovers=False)
            # Tasks are taken: this agent is one of a mesh that works.
            assert (await agent.submit())["created"]
            body = {"task_id": ENDED, "attempt": 1, "outcome": "completed"}
            with pytest.raises(HubError, match="not in the table yet"):
                await agent.executor.say("result", **body)
            older.undo()
            for each in mesh.agents.values():
                each.parts.profile.refresh()
            await all_in(agent)
            assert (await agent.executor.say("result", **body))["reason"].startswith("superseded")


async def test_what_the_table_refuses_is_kept_aside_and_said(tmp_path: Path) -> None:
    async with world(tmp_path, "ab") as mesh:
        agent = mesh["b"]
        others = {"address": "ucxl://x:agent@p:t/*^/notes", "author": "peer-x"}
        foreign = line("import_version", origin="m1", number=1, hash="9" * 64, at_ms=1, **others)
        said = [*lines(), foreign]
        carry(paths_of(agent).carried, said)
        with paths_of(agent).carried.open("ab") as file:
            file.write(b"not a line\n")
        whole = paths_of(agent).carried.read_bytes()
        await restart(agent)
        await all_in(agent)
        check_all(agent)
        (aside,) = paths_of(agent).replaced.iterdir()
        assert aside.read_bytes() == whole
        assert not paths_of(agent).carried.exists()
        detail = (await agent.call("health"))["detail"]
        assert detail.startswith("2 records of another mesh were not taken (the first: ")
        assert str(aside) in detail


async def test_a_file_that_is_no_carry_file_is_kept_aside(tmp_path: Path) -> None:
    async with world(tmp_path, "ab") as mesh:
        agent = mesh["b"]
        paths_of(agent).carried.write_bytes(b"\0\0\0")
        await restart(agent)
        assert not agent.parts.importing.open
        assert "kept in" in (await agent.call("health"))["detail"]
        assert (await agent.submit())["created"]


class Refusing:
    """Stands in for proposals: first gives what it is told, then takes everything."""

    def __init__(self, *first: Settled | HubError) -> None:
        self.first, self.ids = list(first), list[str]()

    async def propose(self, type: str, body: Any, timeout: float, *, entry_id: str) -> Settled:
        self.ids.append(entry_id)
        answer = self.first.pop(0) if self.first else Settled(1, True, "")
        if isinstance(answer, HubError):
            raise answer
        return answer


class NothingThere:
    """Stands in for a table in which the mesh and this agent stand, and nothing else."""

    def get(self, kind: Any, *key: Any) -> Any:
        return {Mesh: Mesh(version=2), Member: Member(B) if key == (B,) else None}.get(kind)


@pytest.mark.parametrize(
    ("answer", "same_id"),
    [
        (Settled(1, False, "the author is not a member"), False),
        (Settled(1, False, "unknown: this version of the table has no entries of that type"), False),
        (HubTimeout("no leader answered"), True),
    ],
)
async def test_what_says_nothing_about_a_line_is_tried_again(
    tmp_path: Path, answer: Settled | HubError, same_id: bool
) -> None:
    path = Paths(tmp_path, tmp_path).carried
    carry(path, [line("import_task", task_id=WAITING, story=STORY)])

    class Follower:
        store = NothingThere()

        def listen(self, listener: Any) -> None:
            pass

    class Hub:
        peer_id = B

    class Settings:
        paths, assignment = Paths(tmp_path, tmp_path), Assignment()
        backbeat = ""

    proposals, settings, log = Refusing(answer), Settings(), Logger(logging.getLogger("chorus.test"))
    stand_ins: Any = (Process("coordinator", settings, log), Hub(), Follower(), proposals)  # type: ignore[arg-type]
    await Importing(*stand_ins).run()
    first, second = proposals.ids
    assert (first == second) is same_id
    assert not path.exists()
