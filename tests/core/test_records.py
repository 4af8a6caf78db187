"""Records between real cores, as Python sees them: large ones, lost agents, a class for each refusal."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

import pytest

from chorus.core import CoreError, Node, RoleKeys, open_many, open_sealed, seal, seal_many
from chorus.hub import (
    Hub,
    HubInvalid,
    HubNotFound,
    HubNotPermitted,
    HubTampered,
    HubTimeout,
    HubTooLarge,
)

from .conftest import PATIENCE_S, SECRET, StartNode, connected

MIB = 1024 * 1024
RECORDS = 50


def named(text: str) -> tuple[str, bytes]:
    value = text.encode()
    return hashlib.sha256(value).hexdigest(), value


async def holds(node: Node, count: int) -> None:
    """Returns when the node's disk has that many records."""
    async with asyncio.timeout(PATIENCE_S):
        while (await node.hub.stats())["dht_records"] < count:  # noqa: ASYNC110 - a disk has no events
            await asyncio.sleep(0.05)


async def test_the_third_reads_all_when_two_are_gone_for_good(three: list[Node]) -> None:
    written = dict[str, bytes]()
    for at, node in enumerate(three):
        for n in range(RECORDS):
            name, value = named(f"record {n} of {at}")
            await node.dht_put("decision", name, value)
            written[name] = value
    last = three[2]
    await holds(last, len(written))
    for node in three[:2]:
        await node.close()
    for name, value in written.items():
        assert (await last.dht_get("decision", name)).payload == value


async def test_the_largest_value_goes_over_the_hub(three: list[Node]) -> None:
    writer, reader, _ = three
    value = os.urandom(MIB) * 16
    name = hashlib.sha256(value).hexdigest()
    async with asyncio.timeout(PATIENCE_S):
        await writer.dht_put("content", name, value, role="developer")
        with pytest.raises(HubNotPermitted, match="developer"):
            await reader.dht_get("content", name)
        await writer.dht_put("content", hashlib.sha256(value[:-1]).hexdigest(), value[:-1])
        found = await reader.dht_get("content", hashlib.sha256(value[:-1]).hexdigest())
        assert found.payload == value[:-1]
    with pytest.raises(HubTooLarge, match="16777216"):
        await writer.dht_put("content", hashlib.sha256(value + b"x").hexdigest(), value + b"x")


async def test_what_is_wrong_has_its_own_exception(three: list[Node]) -> None:
    writer, reader, _ = three
    name, value = named("x")
    with pytest.raises(HubNotFound):
        await reader.dht_get("content", name)
    with pytest.raises(HubNotPermitted):
        await writer.dht_put("agent", reader.peer_id, value)
    for kind, wrong in (("other", name), ("content", "abc"), ("content", named("y")[0])):
        with pytest.raises(HubInvalid):
            await writer.dht_put(kind, wrong, value)
    with pytest.raises(HubInvalid, match="peer id"):
        await reader.dht_get("content", name, hints=["nobody"])


async def test_a_disk_that_lies_is_found_out(start_node: StartNode, data_dir: Path) -> None:
    node = await start_node(data_dir=data_dir, dht=False)
    name, value = named("the truth")
    await node.dht_put("content", name, value)
    await node.close()
    path = data_dir / "core" / "dht.redb"
    stored = bytearray(path.read_bytes())
    at = stored.rindex(b"age-encryption.org")
    stored[at - 1] ^= 1
    path.write_bytes(stored)
    again = await start_node(data_dir=data_dir, dht=False)
    with pytest.raises(HubTampered, match=name):
        await again.dht_get("content", name)


async def test_authors_are_asked_directly(start_node: StartNode) -> None:
    author = await start_node(dht=False)
    without = await start_node([author], dht=False)
    with_dht = await start_node([author])
    name, value = named("kept at home")
    await author.dht_put("content", name, value)
    for reader in (without, with_dht):
        await connected(reader, author)
        with pytest.raises(HubNotFound):
            await reader.dht_get("content", name)
        assert (await reader.dht_get("content", name, hints=[author.peer_id])).payload == value


async def test_a_replica_that_hangs_is_a_timeout(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node()
    code = (
        "import asyncio, sys\n"
        "from chorus.core import Node\n"
        "async def main():\n"
        "    async with Node(sys.argv[1].encode(), bootstrap=[sys.argv[2]], threads=1) as node:\n"
        "        print(node.peer_id, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = (sys.executable, "-c", code, SECRET.decode(), node.addresses[0])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S), node.events() as events:
            await process.stdout.readline()
            while not (await node.hub.net_state())["peers"]:
                await events.get()
            # From now on it counts among those who hold records.
            while not (await node.hub.call("dht.put", _put("first"), b"first")).head["replicas"]:
                pass
            process.send_signal(signal.SIGSTOP)  # connected, and silent
            name, value = named("second")
            with pytest.raises(HubTimeout, match="0 of 1"):
                await node.dht_put("content", name, value)
            # This agent has it all the same.
            assert (await node.dht_get("content", name)).payload == value
    finally:
        process.kill()
        await process.wait()


def _put(text: str) -> dict[str, str]:
    return {"kind": "content", "name": named(text)[0]}


def test_batches_are_sealed_and_opened() -> None:
    writer, reader = RoleKeys(SECRET, "developer"), RoleKeys(SECRET, "architect")
    plains = [str(n).encode() * n for n in range(500)]
    sealed = seal_many(writer, "developer", plains)
    assert open_many(reader, sealed) == plains
    assert open_sealed(reader, sealed[7]) == plains[7]
    assert open_many(writer, [seal(writer, None, b"one")]) == [b"one"]
    assert seal_many(writer, None, []) == []
    with pytest.raises(CoreError) as shut:
        open_many(RoleKeys(SECRET, "observer"), sealed)
    assert shut.value.code == "not_permitted"


async def test_an_agent_with_a_keys_file_says_so(start_node: StartNode, tmp_path: Path) -> None:
    from chorus._core import Core
    from chorus.core.config import core_config

    plain = await start_node()
    assert (await plain.hub.net_state())["role_keys"] == "derived from the cluster secret"
    path = tmp_path / "keys"
    path.write_text(KEYS)
    path.chmod(0o600)
    node = await start_node(role_keys_file=path)
    assert (await node.hub.net_state())["role_keys"] == "role keys file"
    sealed = await node.hub.seal(b"for members with the file")
    assert await node.hub.open_sealed(sealed) == b"for members with the file"
    with pytest.raises(HubNotPermitted):
        await plain.hub.open_sealed(sealed)
    path.chmod(0o640)
    config = core_config(
        data_dir=tmp_path / "data", hub=tmp_path / "hub.sock", cluster_secret=SECRET, role_keys_file=path
    )
    with pytest.raises(CoreError, match="chmod 600"):
        Core.start(config)


# An age identity made for these tests, and its recipient.
KEYS = """\
# role: member
AGE-SECRET-KEY-1HDJ0ST3DKHD69GQDT97DMD25HGT0ZXGU5RU5TZJMDNLKWNWWV3HSGFYUTU
age1wklg9cr3ftasf0kncdzsvjyjzntlsd6hz7mqf68w4rm6q7yj5ftq5hvksu
# role: admin
age1wklg9cr3ftasf0kncdzsvjyjzntlsd6hz7mqf68w4rm6q7yj5ftq5hvksu
"""


# The cache is divided into parts, a few for each core: where all have to fit, all fit into one of them.
@pytest.mark.parametrize(
    ("cache_bytes", "value_bytes", "all_fit"), [(MIB, MIB // 4, False), (256 * MIB, MIB // 16, True)]
)
async def test_the_cache_takes_as_much_memory_as_it_is_given(
    short_dir: Path, cache_bytes: int, value_bytes: int, all_fit: bool
) -> None:
    from chorus._core import Core
    from chorus.core.config import core_config

    hub_path = short_dir / "hub.sock"
    config = core_config(
        data_dir=short_dir / "data", hub=hub_path, cluster_secret=SECRET, dht_cache_bytes=cache_bytes
    )
    core = await asyncio.to_thread(Core.start, config)
    try:
        async with await Hub.connect(hub_path, "test", retry_for=PATIENCE_S) as hub:
            values = [os.urandom(value_bytes) for _ in range(12)]
            for value in values:
                await hub.dht_put("content", hashlib.sha256(value).hexdigest(), value)
            for value in values:
                found = await hub.dht_get("content", hashlib.sha256(value).hexdigest())
                assert found.payload == value
            missed = (await hub.stats())["dht_cache_misses"]
        assert missed == 0 if all_fit else missed >= len(values) - cache_bytes // value_bytes
    finally:
        await asyncio.to_thread(core.stop)
