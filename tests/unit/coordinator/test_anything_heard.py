"""A coordinator outlives anything that announcements, cancels and peers' requests can say."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from agents import World, world
from hypothesis import given
from hypothesis import strategies as st

from chorus.coordinator.gossip import HEARD_MAX
from chorus.hub import Message, guard
from chorus.hub.services import SERVICES
from chorus.testing.anything import OBJECTS, RAW, SPOILED, VALUES, ask, examples, raw_message, spoil
from chorus.wire.messages import MESSAGES, META_DISCUSSION


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED)
async def test_a_coordinator_outlives_every_announcement(tmp_path: Path, spoiled: bytes) -> None:
    async with world(tmp_path, "a") as w:
        for type in ("task_announcement", "task_cancel"):
            spoil(w.mesh, "a", raw_message("chorus/tasks", type, spoiled))
        foreign = w.mesh.hub("x", "foreign")
        await foreign.publish("chorus/tasks", "task_announcement", {"title": "heard", "commands": ["true"]})
        await w["a"].until(lambda: bool(list(w["a"].parts.store.open_tasks())), "heard")
        assert not w["a"].running.done()


# Some of the requests are tasks, which the world that stands in for mesh and log keeps.
CASES_PER_WORLD = 1000


class Lived:
    """A coordinator on a loop of its own, for cases one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner, self._stack = asyncio.Runner(), AsyncExitStack()
        self._cases = 0
        self.world: World

    def __enter__(self) -> Lived:
        self._runner.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _begin(self) -> None:
        folder = self._folder / str(self._cases)
        folder.mkdir()
        self.world = await self._stack.enter_async_context(world(folder, "a"))

    async def _count(self) -> None:
        self._cases += 1
        if self._cases % CASES_PER_WORLD == 0:
            await self._stack.aclose()
            shutil.rmtree(self._folder / str(self._cases - CASES_PER_WORLD))
            await self._begin()

    def hear(self, message: Message) -> None:
        """One message, as its loop hands it over."""

        async def heard() -> None:
            async def one() -> Any:
                yield message

            gossip = self.world["a"].parts.gossip
            await guard.each(one(), gossip.hear, "gossip")
            assert len(gossip._heard) <= HEARD_MAX

        self._runner.run(heard())
        assert not self.world["a"].running.done()
        self._runner.run(self._count())

    def hear_discussed(self, message: Message) -> None:
        """One message as the part for discussions takes it."""

        async def heard() -> None:
            async def one() -> Any:
                yield message

            await guard.each(one(), self.world["a"].parts.hmmm.hear, "gossip")

        self._runner.run(heard())
        assert not self.world["a"].running.done()
        self._runner.run(self._count())

    def ask(self, method: str, head: Any, body: bytes) -> None:
        """One request and one stream."""
        parts = self.world["a"].parts
        self._runner.run(ask(parts._serve, parts._stream, method, head, body))
        assert not self.world["a"].running.done()
        self._runner.run(self._count())


def test_gossip_of_any_content_ends_nothing(tmp_path: Path) -> None:
    with Lived(tmp_path) as lived:

        @examples
        @given(st.sampled_from(["task_announcement", "task_cancel"]), RAW)
        def run(type: str, data: bytes) -> None:
            lived.hear(raw_message("chorus/tasks", type, data))

        run()


def test_discussions_of_any_content_end_nothing(tmp_path: Path) -> None:
    types = [*MESSAGES[META_DISCUSSION], "task_progress", "dependency_alert"]
    with Lived(tmp_path) as lived:

        @examples
        @given(st.sampled_from(types), RAW)
        def run(type: str, data: bytes) -> None:
            lived.hear_discussed(raw_message(META_DISCUSSION, type, data))

        run()


def test_requests_of_any_content_are_answered(tmp_path: Path) -> None:
    talked = ["hmmm.open", "hmmm.help", "hmmm.result", "hmmm.list", "hmmm.show", "hmmm.say", "hmmm.progress"]
    methods = [*sorted(SERVICES["coordinator"].peers), "table.submit", *talked, "nonsense"]
    with Lived(tmp_path) as lived:

        @examples
        @given(st.sampled_from(methods), OBJECTS | VALUES, RAW)
        def run(method: str, head: Any, body: bytes) -> None:
            lived.ask(method, head, body)

        run()


async def test_a_leader_outlives_an_odd_record_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, "a") as w:
        parts, looked = w["a"].parts, asyncio.Event()
        unrecorded = parts.store.unrecorded_ballots

        def odd() -> Any:
            looked.set()
            far = type("Far", (), {"state": "open", "hash": "0" * 64, "round": 1, "closes_at": None})
            return [far, *unrecorded()]

        async def stumbles() -> None:
            raise OverflowError("a time beyond the calendar")

        monkeypatch.setattr(parts.store, "unrecorded_ballots", odd)
        monkeypatch.setattr(parts.leading, "_check_presence", stumbles)
        parts.ballots._stale = True
        parts.ballots._wake.set()
        parts.leading._wake.set()
        await looked.wait()
        assert (await w["a"].submit())["task"]["state"]
        assert not w["a"].running.done()
