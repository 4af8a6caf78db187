"""The parent's care for the assignment: loads that are asked for, what they change, what is said."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chorus.agent import assigning
from chorus.agent.assigning import Assigning
from chorus.agent.entries import Entries
from chorus.config import Assignment, Settings
from chorus.config.load import load_settings
from chorus.config.values import from_json
from chorus.hub import HubRefused
from chorus.process.logs import Logger
from chorus.whoosh import Copy, Document, Load

DEADLINE_S = 20.0
ENVIRONMENT = Assignment(role="developer", max_tasks=3)


class Server:
    """Answers loads with what it is told to; `gate` holds the next ones up."""

    def __init__(self) -> None:
        self.next = Load(Document(), "server")
        self.loads = 0
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self) -> Load:
        self.loads += 1
        self.begun.set()
        assert self.gate.wait(DEADLINE_S)
        return self.next

    def say(self, **fields: Any) -> None:
        self.next = Load(Document(fields=fields), "server")


def settings_of(folder: Path, **environ: str) -> Settings:
    given = {"CHORUS_LICENSE_ID": "dev-1", "CHORUS_AGENT_ID": "a", "ASSIGN_URL": "http://127.0.0.1:1/a.json"}
    given |= {"CHORUS_DATA_DIR": str(folder), "CHORUS_RUN_DIR": str(folder), **environ}
    return replace(load_settings(given), assignment=ENVIRONMENT)


def made(folder: Path, server: Callable[[], Load], first: Load | None = None, **more: Any) -> Assigning:
    log = Logger(logging.getLogger("test-assigning"))
    return Assigning(settings_of(folder), ENVIRONMENT, first, log, Entries(), loads=server, **more)


@asynccontextmanager
async def working(one: Assigning) -> AsyncIterator[Assigning]:
    work = asyncio.create_task(one._load_when_asked())
    try:
        yield one
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assigning, "LOADS_APART_S", 0.01)
    monkeypatch.setattr(assigning, "AGAIN_FIRST_S", 0.01)


async def test_a_reload_changes_what_the_document_names(tmp_path: Path) -> None:
    server = Server()
    server.say(role="reviewer", max_tasks=1)
    async with (
        working(made(tmp_path, server, Load(Document(), "server"))) as one,
        asyncio.timeout(DEADLINE_S),
    ):
        said = await one.reload()
        assert (said["source"], said["changed"], said["refused"]) == ("server", ["role", "max_tasks"], [])
        assert one.current == Assignment(role="reviewer", max_tasks=1)
        assert said["kept"] == []
        written = from_json(Assignment, json.loads((tmp_path / "assignment.json").read_bytes()))
        assert written == one.current
        assert (await one.reload())["changed"] == []
        # What a document does not name any more is the environment's again.
        server.say()
        assert (await one.reload())["changed"] == ["role", "max_tasks"]
        assert one.current == ENVIRONMENT
        assert one._said()["number"] == 2


async def test_what_is_refused_leaves_all_as_it_was(tmp_path: Path) -> None:
    server = Server()
    server.say(role="reviewer")
    async with (
        working(made(tmp_path, server, Load(Document(), "server"))) as one,
        asyncio.timeout(DEADLINE_S),
    ):
        await one.reload()
        # The copy is older than what runs.
        server.next = Load(Document(fields={"role": "old"}), "copy", refused=("role: expected a name",))
        said = await one.reload()
        assert (said["changed"], said["refused"]) == ([], ["role: expected a name"])
        assert one.current.role == "reviewer"
        assert one.health()["ok"]
        assert "role: expected a name" in one.health()["detail"]


async def test_signals_during_a_load_make_one_more_after_it(tmp_path: Path) -> None:
    server = Server()
    server.gate.clear()
    async with (
        working(made(tmp_path, server, Load(Document(), "server"))) as one,
        asyncio.timeout(DEADLINE_S),
    ):
        one.hangup()
        await asyncio.to_thread(server.begun.wait)
        for _ in range(8):
            one.hangup()
        # The last of them comes after the document was changed.
        server.say(role="reviewer")
        waiting = [asyncio.create_task(one.reload()) for _ in range(3)]
        await asyncio.sleep(0)
        server.gate.set()
        said = await asyncio.gather(*waiting)
        assert server.loads == 2
        assert all(each == said[0] for each in said)
        assert one.current.role == "reviewer"


async def test_without_an_answer_and_a_copy_the_server_is_asked_again(tmp_path: Path) -> None:
    server = Server()
    server.next = Load(error="the server is away")
    one = made(tmp_path, server, server.next)
    assert one.health() == {
        "ok": False,
        "detail": "no assignment yet, the environment speaks alone: the server is away",
    }
    async with working(one), asyncio.timeout(DEADLINE_S):
        while server.loads < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        server.say(role="reviewer")
        while one.current.role != "reviewer":  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert one.health() == {"ok": True, "detail": "as assigned"}
    # That it was still away was no news each time.
    assert [entry["error"] for _, entry in one._entries.waiting] == ["the server is away", ""]


async def test_the_last_good_copy_is_as_good_and_that_is_said(tmp_path: Path) -> None:
    one = made(tmp_path, Server(), Load(Document(), "copy", error="the server is away"))
    assert one.health() == {"ok": True, "detail": "the last good copy counts: the server is away"}


async def test_a_good_document_is_kept_on_the_disk(tmp_path: Path) -> None:
    server = Server()
    server.next = Load(Document(), "server", copy=Copy("http://h/a", '"1"', True, "{}"))
    async with (
        working(made(tmp_path, server, Load(Document(), "server"))) as one,
        asyncio.timeout(DEADLINE_S),
    ):
        await one.reload()
    assert (tmp_path / "assigned.json").stat().st_mode & 0o777 == 0o600


async def test_another_agent_id_needs_a_restart_unless_the_environment_names_the_agent(
    tmp_path: Path,
) -> None:
    server = Server()
    server.next = Load(Document(agent_id="b"), "server")
    for named, kept in ((True, []), (False, ["agent_id: needs a restart"])):
        one = made(tmp_path, server, Load(Document(), "server"), named=named)
        async with working(one), asyncio.timeout(DEADLINE_S):
            assert (await one.reload())["kept"] == kept


async def test_a_fault_of_a_load_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    server = Server()
    broken = [True]

    def loads() -> Load:
        if broken.pop() if broken else False:
            raise RuntimeError("odd")
        return server()

    async with working(made(tmp_path, loads, Load(Document(), "server"))) as one, asyncio.timeout(DEADLINE_S):
        assert "odd" in (await one.reload())["error"]
        assert (await one.reload())["error"] == ""


async def test_without_an_address_there_is_nothing_to_load(tmp_path: Path) -> None:
    log = Logger(logging.getLogger("test-assigning"))
    one = Assigning(settings_of(tmp_path, ASSIGN_URL=""), ENVIRONMENT, None, log, Entries())
    one.hangup()
    with pytest.raises(HubRefused, match="ASSIGN_URL"):
        await one.reload()
    assert one.health()["ok"]
    assert one.status()["url"] is None
