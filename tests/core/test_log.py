"""The log of a running core from Python: pages, followers, verification, also of a folder at rest."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("chorus._core")

from chorus.core import Log, Node, verify_folder
from chorus.hub import HubInvalid

from .conftest import PATIENCE_S, StartNode


async def filled(node: Node, count: int) -> Log:
    log = Log(node.hub)
    for n in range(count):
        await log.append("even" if n % 2 == 0 else "odd", {"n": n})
    return log


async def test_pages_from_either_end_and_by_type(start_node: StartNode) -> None:
    async with asyncio.timeout(PATIENCE_S):
        log = await filled(await start_node(), 10)
        page = await log.page(count=3)
        assert [entry["seq"] for entry in page.entries] == [0, 1, 2]
        assert (page.next, page.length) == (3, 10)
        page = await log.page(page.next, 2, type="odd")
        assert [(entry["seq"], entry["data"]["n"]) for entry in page.entries] == [(3, 3), (5, 5)]
        page = await log.page(count=3, newest_first=True)
        assert [entry["seq"] for entry in page.entries] == [9, 8, 7]
        page = await log.page(page.next, 9, type="even", newest_first=True)
        assert [entry["seq"] for entry in page.entries] == [6, 4, 2, 0]
        assert page.next == 0
        assert [entry["seq"] async for entry in log.entries(4, type="even")] == [4, 6, 8]
        with pytest.raises(HubInvalid):
            await log._hub.call("log.read", {"count": 1, "order": "random"})


async def test_a_follower_misses_nothing_also_when_the_core_restarts(
    start_node: StartNode, data_dir: Path
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        node = await start_node(data_dir=data_dir)
        log = await filled(node, 5)
        async with log.follow(2, type="even") as even, log.follow(0) as entries:
            assert [(await even.get())["seq"], (await even.get())["seq"]] == [2, 4]
            seen = [(await entries.get())["seq"] for _ in range(5)]
            await node.stop_core()
            await node.start()
            await log.append("even", {"n": 5})
            await log.append("odd", {"n": 6})
            seen += [(await entries.get())["seq"] for _ in range(2)]
            assert seen == list(range(7))
            entry = await even.get()
            assert (entry["seq"], entry["type"], entry["data"]) == (5, "even", {"n": 5})


async def test_a_live_log_is_verified(start_node: StartNode) -> None:
    async with asyncio.timeout(PATIENCE_S):
        node = await start_node()
        log = await filled(node, 9)
        events = [event async for event in log.verify()]
        assert [event["kind"] for event in events] == ["end"]
        end = events[0]
        assert end["genuine"] is True
        assert (end["checked"], end["length"], end["peer_id"]) == (9, 9, node.peer_id)


def ending(folder: Path) -> dict[str, Any]:
    *_, end = verify_folder(folder)
    assert end["kind"] == "end"
    return end


async def test_a_folder_is_verified_at_rest(start_node: StartNode, data_dir: Path, tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        node = await start_node(data_dir=data_dir)
        await filled(node, 9)
        peer = node.peer_id
        await node.close()
    folder = data_dir / "core" / "log"
    end = ending(folder)
    assert (end["genuine"], end["length"], end["peer_id"], end["unfinished"]) == (True, 9, peer, None)
    for place in range(0, end["byte_length"], 37):
        forged = tmp_path / f"forged-{place}"
        shutil.copytree(folder, forged)
        data = bytearray((forged / "data").read_bytes())
        data[place] ^= 1
        (forged / "data").write_bytes(data)
        end = ending(forged)
        assert (end["genuine"], end["error"]["code"]) == (False, "tampered")
        # The first bad entry is named, and those before it are counted.
        assert f"entry {end['checked']} " in end["error"]["message"]
    assert ending(tmp_path)["error"]["code"] == "not_found"
