"""What a library user gets from `Node`: topics, requests, streams, records and the log between real cores."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import orjson
import pytest

from chorus import decisions
from chorus.config import MeshSettings
from chorus.core import CoreError, Log, Node
from chorus.hub import (
    ByteStream,
    Hub,
    HubError,
    HubNotFound,
    HubRefused,
    HubTimeout,
    HubUnavailable,
    Reply,
    Request,
)
from chorus.testing.decision_records import DECIDED, made

from .conftest import PATIENCE_S, SECRET, StartNode, connected

STREAM_BYTES = 20 * 1024 * 1024


async def test_messages_reach_every_other_node_with_their_sender(three: list[Node]) -> None:
    sender, *others = three
    async with asyncio.timeout(PATIENCE_S):
        feeds = [await node.subscribe("chorus/tasks").open() for node in others]
        for n in range(20):
            await sender.publish("chorus/tasks", "task_cancel", {"task_id": str(n)})
        for feed in feeds:
            got = [await feed.get() for _ in range(20)]
            # Gossip promises no order among messages of a burst.
            assert {message.data["task_id"] for message in got} == {str(n) for n in range(20)}
            assert {(m.sender, m.topic, m.type, m.gap) for m in got} == {
                (sender.peer_id, "chorus/tasks", "task_cancel", 0)
            }
            assert got[0].envelope["from"] == sender.peer_id


@pytest.mark.parametrize(
    ("topic", "type", "data"),
    [
        ("chorus/tasks", "task_cancel", {"task_id": "t"}),
        ("chorus/coordination/v1", "task_claim", {"task_id": "t"}),
        ("hmmm/meta-discussion/v1", "hmmm.message", {"message": "m"}),
        ("chorus/election/v1", "heartbeat", {"term": 1}),
        ("chorus/decisions", "decision_published", {"hash": "h"}),
        ("chorus/health", "health_status", {"status": "healthy"}),
    ],
)
async def test_every_node_is_on_the_topics_of_the_contract(
    start_node: StartNode, topic: str, type: str, data: dict[str, str]
) -> None:
    # Without the DHT nobody introduces the two ends of a line; in its middle no process listens.
    first = await start_node(dht=False)
    middle = await start_node([first], dht=False)
    last = await start_node([middle], dht=False)
    await connected(middle, first, last)

    async def say() -> None:
        # Gossip keeps a message for seconds: a node that hears later who reads it has nothing to pass on.
        while True:
            await first.publish(topic, type, data)
            await asyncio.sleep(1)

    async with asyncio.timeout(PATIENCE_S), last.subscribe(topic) as messages:
        saying = asyncio.create_task(say())
        message = await messages.get()
        saying.cancel()
        assert (message.sender, message.topic, message.type) == (first.peer_id, topic, type)
        assert [peer["peer"] for peer in (await last.hub.net_state())["peers"]] == [middle.peer_id]


async def test_a_node_that_is_closed_ends_its_connections(start_node: StartNode) -> None:
    stays = await start_node()
    leaves = await start_node([stays])
    await connected(stays, leaves)
    async with asyncio.timeout(PATIENCE_S), stays.events() as events:
        peer = leaves.peer_id
        await leaves.close()
        while (event := await events.get())["kind"] != "peer_down":
            pass
        assert event["peer"] == peer
        assert (await stays.hub.net_state())["peers"] == []


async def test_secrets_do_not_leave_by_gossip_but_commands_stay_whole(three: list[Node]) -> None:
    sender, receiver, _ = three
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    async with asyncio.timeout(PATIENCE_S), receiver.subscribe("chorus/tasks") as messages:
        await sender.publish(
            "chorus/tasks", "task_announcement", {"title": f"use {secret}", "commands": [f"echo {secret}"]}
        )
        data = (await messages.get()).data
        assert secret not in data["title"]
        assert "[REDACTED:" in data["title"]
        assert data["commands"] == [f"echo {secret}"]
    assert sum((await sender.hub.stats())["shhh_findings"].values()) >= 1


def on_disk(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


async def test_no_way_out_of_a_core_lets_a_secret_go(tmp_path: Path) -> None:
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    harmless = "ghq_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    async with (
        asyncio.timeout(PATIENCE_S),
        Node(SECRET, data_dir=tmp_path / "one") as node,
        Node(SECRET, data_dir=tmp_path / "two", bootstrap=node.addresses) as other,
    ):
        async with other.subscribe("chorus/health") as messages:
            details = {"note": f"it is {secret}", "parts": [secret, {secret: 1}], "other": harmless}
            await node.hub.publish(
                "chorus/health", "health_status", {"status": "healthy", "details": details}
            )
            assert secret not in str((await messages.get()).envelope)
            key = "-----BEGIN PRIV" + "ATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHQ2oZ8fVYw3k1Q7n0m9Zl5x"
            with pytest.raises(HubRefused, match="private-key"):
                await node.hub.publish(
                    "chorus/health", "health_status", {"status": "healthy", "details": {"k": key}}
                )
        log = Log(node.hub)
        seq = await log.append("test", {"text": f"{harmless} {secret}", "password": "x7Kq2LmV9nRt4WzY"})
        entry = str(await log.read(seq, 1))
        assert (secret in entry, "x7Kq2LmV9nRt4WzY" in entry, harmless in entry) == (False, False, True)
        for value in (secret.encode(), b"\0" * 70_000 + secret.encode() + b"\xff"):
            with pytest.raises(HubRefused, match="github-token"):
                await node.hub.dht_put("content", hashlib.sha256(value).hexdigest(), value)
        with pytest.raises(HubNotFound):
            await node.hub.dht_get("content", hashlib.sha256(secret.encode()).hexdigest())
        audit = (await node.hub.stats())["shhh_audit"]
    assert {"chorus/health", "log.append", "dht.put"} <= {found["place"] for found in audit}
    assert len({found["audit"] for found in audit if found["rule"] == "github-token"}) == 1
    assert secret not in str(audit)
    assert on_disk(tmp_path, harmless)
    assert not on_disk(tmp_path, secret)


async def test_a_signature_that_looks_like_a_token_keeps_no_record_back(tmp_path: Path) -> None:
    token = "YC" + "A20C2776umD3z1W4F7deZRCUsnO5WiV1Ggnaeq"
    signature = ("A" * 30 + f"/{token}/").ljust(85, "B") + "A=="

    def named(record: dict[str, str]) -> tuple[str, bytes]:
        value = orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(value).hexdigest(), value

    async with asyncio.timeout(PATIENCE_S), Node(SECRET, data_dir=tmp_path) as node:
        name, value = named({"sig": signature, "summary": "s"})
        await node.hub.dht_put("decision", name, value)
        assert (await node.hub.dht_get("decision", name)).payload == value
        for record in ({"sig": signature, "summary": token}, {"sig": f"/{token}/"}):
            with pytest.raises(HubRefused, match="yandex-token"):
                await node.hub.dht_put("decision", *named(record))
        with pytest.raises(HubRefused, match="yandex-token"):
            await node.hub.dht_put("content", name, value)


async def test_an_operators_rules_hold_in_the_core() -> None:
    rule = {"id": "acme", "pattern": "acme_[0-9]{4}", "keywords": ["acme_"], "found": ["acme_0042"]}
    rules = orjson.dumps({"rules": [rule], "allow": [{"literal": "acme_1111"}]}).decode()
    async with asyncio.timeout(PATIENCE_S), Node(SECRET, shhh_rules=rules) as node:
        assert await node.hub.redact(b"acme_4711 acme_1111") == b"[REDACTED:acme] acme_1111"
    with pytest.raises(CoreError, match=r"rules\[0\]: pattern: missing"):
        async with Node(SECRET, shhh_rules='{"rules": [{}]}'):
            pass


async def test_requests_find_their_service_and_errors_keep_their_code(three: list[Node]) -> None:
    server, client, _ = three

    async def handler(request: Request) -> Reply | None:
        if request.method == "refuse":
            raise HubRefused("not today")
        if request.method == "break":
            raise KeyError("oops")
        if request.method == "hang":
            await asyncio.Event().wait()
        return Reply({"peer": request.peer, **request.head}, request.payload * 2)

    async with asyncio.timeout(PATIENCE_S):
        await server.serve("echo", handler)
        reply = await client.request(server.peer_id, "echo", "x", {"a": 1}, b"ab")
        assert (reply.head, reply.payload) == ({"peer": client.peer_id, "a": 1}, b"abab")
        big = os.urandom(4 * 1024 * 1024)
        assert (await client.request(server.peer_id, "echo", "x", None, big)).payload == big * 2
        with pytest.raises(HubRefused, match="not today"):
            await client.request(server.peer_id, "echo", "refuse")
        with pytest.raises(HubError) as broken:
            await client.request(server.peer_id, "echo", "break")
        assert broken.value.code == "internal"
        with pytest.raises(HubTimeout):
            await client.request(server.peer_id, "echo", "hang", timeout=0.2)
        with pytest.raises(HubUnavailable):
            await client.request(server.peer_id, "nobody", "x")
        many = await asyncio.gather(
            *(client.request(server.peer_id, "echo", "x", {"n": n}) for n in range(500))
        )
        assert [reply.head["n"] for reply in many] == list(range(500))
        own = await server.request(server.peer_id, "echo", "x")
        assert own.head == {"peer": None}


@pytest.mark.parametrize("local", [True, False])
async def test_streams_carry_much_both_ways(three: list[Node], local: bool) -> None:
    server, client, _ = three
    data = os.urandom(1024 * 1024) * (STREAM_BYTES // (1024 * 1024))

    async def echo(request: Request, stream: ByteStream) -> None:
        async for chunk in stream:
            await stream.write(chunk)

    async def handler(request: Request) -> None:
        return None

    async with asyncio.timeout(PATIENCE_S):
        await server.serve("echo", handler, streams=echo)
        opener = server.hub if local else client.hub
        stream = await opener.open_stream("echo", "x", peer=server.peer_id)

        async def send() -> None:
            await stream.write(data)
            await stream.end()

        sending = asyncio.create_task(send())
        received = await stream.read_all(STREAM_BYTES)
        await sending
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


async def test_a_stream_that_fails_is_never_taken_for_whole(three: list[Node]) -> None:
    server, client, _ = three

    async def half(request: Request, stream: ByteStream) -> None:
        if request.method == "refuse":
            await stream.write(b"some")
            raise HubRefused("no more of it")
        await stream.write(b"some")
        await stream.read()
        await server.close()

    async def handler(request: Request) -> None:
        return None

    async with asyncio.timeout(PATIENCE_S):
        await server.serve("half", handler, streams=half)
        stream = await client.open_stream(server.peer_id, "half", "refuse")
        with pytest.raises(HubRefused, match="no more"):
            await stream.read_all(100)
        stream = await client.open_stream(server.peer_id, "half", "die")
        assert await stream.read() == b"some"
        await stream.write(b"now")
        with pytest.raises(HubError):
            await stream.read_all(100)
        with pytest.raises(HubUnavailable):
            await client.open_stream(client.peer_id, "nobody", "x")


async def test_records_are_found_opened_and_checked(three: list[Node]) -> None:
    writer, reader, _ = three
    value = b"a decision"
    name = hashlib.sha256(value).hexdigest()
    async with asyncio.timeout(PATIENCE_S):
        await writer.dht_put("content", name, value)
        found = await reader.dht_get("content", name)
        assert (found.payload, found.author) == (value, writer.peer_id)
        with pytest.raises(HubNotFound):
            await reader.dht_get("content", "0" * 64)
        secret = (
            b"-----BEGIN RSA PRIVATE KEY-----\n"
            + b"MIIEpAIBAAKCAQEA" * 40
            + b"\n-----END RSA PRIVATE KEY-----\n"
        )
        with pytest.raises(HubRefused):
            await writer.dht_put("content", hashlib.sha256(secret).hexdigest(), secret)
        sealed = await writer.hub.seal(b"for members")
        assert await reader.hub.open_sealed(sealed) == b"for members"


async def test_the_log_is_kept(start_node: StartNode, data_dir: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        node = await start_node(data_dir=data_dir)
        log = Log(node.hub)
        numbers = await asyncio.gather(*(log.append("note", {"n": n}) for n in range(50)))
        peer = node.peer_id
        await node.close()
        again = await start_node(data_dir=data_dir)
        assert again.peer_id == peer
        entries = [entry async for entry in Log(again.hub).entries()]
        assert sorted(numbers) == list(range(50))
        assert sorted(entry["data"]["n"] for entry in entries) == list(range(50))
        assert {entry["author"] for entry in entries} == {peer}


async def test_a_mesh_of_one_commits_and_another_joins(three: list[Node]) -> None:
    founder, joiner, stranger = three
    hub = founder.hub
    settings = MeshSettings(heartbeat_ms=100, election_timeout_ms=400)
    async with asyncio.timeout(PATIENCE_S):
        mesh = await hub.raft_found(settings, {"agent_id": founder.agent_id})
        first = await hub.propose("submit", {"task_id": "1"}, entry_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
        assert await hub.propose("submit", {"task_id": "1"}, entry_id=first.id) == first
        added = await hub.raft_add(joiner.peer_id, {"agent_id": joiner.agent_id, "request": joiner.agent_id})
        members = [(member.raft_id, member.peer) for member in (await hub.raft_status()).members]
        async with joiner.hub.follow(1) as entries:
            await joiner.hub.raft_adopt(mesh, added.raft_id, added.founding, members)
            through = await joiner.hub.propose("submit", {"task_id": "2"})
            seen = []
            while not seen or seen[-1].index < through.index:
                seen.append(await entries.get())
        assert [entry.index for entry in seen] == list(range(1, through.index + 1))
        tasks = [(entry.body["task_id"], entry.author) for entry in seen if entry.type == "submit"]
        assert tasks == [("1", founder.peer_id), ("2", joiner.peer_id)]
        assert (await joiner.hub.raft_status()).leader == founder.peer_id
        with pytest.raises(HubError) as outside:
            await stranger.hub.propose("submit", {}, timeout=1)
        assert outside.value.code == "no_mesh"


async def test_a_hub_that_is_not_there_is_said_so(data_dir: Path) -> None:
    with pytest.raises(HubUnavailable):
        await Hub.connect(data_dir / "hub.sock", "x", retry_for=0.2)


async def test_a_decision_record_keeps_its_form_whatever_its_ids_spell(start_node: StartNode) -> None:
    node = await start_node()
    # As one text with what stands behind it, this reads like `Pwd… = transcript_sha256`.
    participants = ["12D3KooWATxytexhiskn6jSR7DBzuBwizPwdA2xLpGxKcS2WTZDk", node.hub.peer_id]
    token = "ghp_" + "x7Kq2LmV9nRt4WzY8bCd1FgH6jPs3TuE5aQw"
    decided = {**DECIDED["hmmm_outcome"], "participants": participants[::-1], "reason": f"it was {token}"}
    record = made("hmmm_outcome", peer=node.hub.peer_id, decided=decided)
    async with asyncio.timeout(PATIENCE_S):
        encoded = await decisions.redact_and_sign(node.hub, record)
    verified = decisions.verify(encoded)
    clean = {**decided, "reason": "it was [REDACTED:github-token]"}
    assert verified.record["decided"] == clean
