"""What a stranger sends stays with the stranger: no process ends, nothing grows, work goes on."""

from __future__ import annotations

import json

import pytest

from e2e.conftest import Mesh
from e2e.test_run import until

from .conftest import Stranger
from .processes import all_processes, rss_bytes, work_goes_on

pytestmark = pytest.mark.e2e

TASKS, ELECTION = "chorus/tasks", "chorus/election/v1"
# More than an agent has room for.
IDLE = 1_100
# Connections that it gives to strangers once it is in a mesh.
STRANGERS_MAX = 128

# JSON values (or what claims to be) that broke a reader of some language.
ODD_VALUES = {
    "a time beyond the calendar": b'{"title": "t", "start_by": "9999-12-31T23:59:59-14:00"}',
    "a time before the calendar": b'{"title": "t", "start_by": "0001-01-01T00:00:00+14:00"}',
    "invalid UTF-8": b'{"title": "\xff\xfe"}',
    "a lone surrogate": b'{"title": "\\ud800", "commands": ["true"]}',
    "a lone surrogate as a key": b'{"title": "t", "env": {"\\udfff": "x"}}',
    "an infinite number": b'{"title": "t", "priority": 1e999}',
    "an integer of 400 digits": b'{"title": "t", "priority": ' + b"9" * 400 + b"}",
    "a number beyond 2^53": b'{"title": "t", "priority": 9007199254740993}',
    "deep nesting": b'{"title": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "no JSON": b"{",
    "NaN": b'{"title": "t", "timeout_s": NaN}',
}
ODD_HEARTBEATS = {
    "a term of 400 digits": b'{"mesh": "x", "term": ' + b"9" * 400 + b"}",
    "an infinite score": b'{"mesh": "x", "term": 1, "score": 1e999}',
    "a lone surrogate": b'{"mesh": "\\ud800", "term": 1}',
    "deep nesting": b'{"mesh": ' + b'{"a":' * 1500 + b"1" + b"}" * 1500 + b"}",
    "invalid UTF-8": b'{"mesh": "\xc3\x28"}',
}


def test_no_message_ends_a_process(mesh: Mesh, stranger: Stranger) -> None:
    before = all_processes(mesh)
    with stranger() as peer:
        for value in ODD_VALUES.values():
            peer.say(TASKS, "task_announcement", value)
            peer.say(TASKS, "task_cancel", value)
        for value in (*ODD_HEARTBEATS.values(), *ODD_VALUES.values()):
            peer.say(ELECTION, "heartbeat", value)
    work_goes_on(mesh)
    assert all_processes(mesh) == before


# What members, or an agent's own processes, are served: requests, and streams.
FOR_OTHERS = [
    ("coordinator", "renew"),
    ("coordinator", "blobs.has"),
    ("coordinator", "table.submit"),
    ("executor", "award"),
    ("output", "artifacts"),
    ("election", "status"),
    ("_raft", "propose"),
    ("_dht", "get"),
]
STREAMS_FOR_OTHERS = [("coordinator", "blobs.get"), ("coordinator", "blobs.put"), ("output", "logs")]


def test_before_joining_a_peer_is_served_nothing_but_the_way_in(mesh: Mesh, stranger: Stranger) -> None:
    named = json.dumps({"sha256": "0" * 64, "task_id": "0" * 26, "attempt": 1}).encode()
    with stranger() as peer:
        assert peer.request("mesh", "info")["kind"] == 2
        for service, method in FOR_OTHERS:
            answer = peer.request(service, method, named)
            assert answer.get("kind") == 3, (service, method, answer)
            assert json.loads(answer["text"])["code"] == "not_permitted", (service, method, answer)
        for service, method in STREAMS_FOR_OTHERS:
            answer = peer.request(service, method, named, protocol="/chorus/stream/1.0.0")
            assert answer.get("kind") == 3, (service, method, answer)
            assert json.loads(answer["text"])["code"] == "not_permitted", (service, method, answer)


def test_forged_raft_frames_cost_their_sender(mesh: Mesh, stranger: Stranger) -> None:
    node = mesh.agents[0].processes()["node"]
    before = rss_bytes(node)
    frame = (8 << 20).to_bytes(4, "big") + b"\x3a\x00" * (4 << 20)
    with stranger() as peer:
        peer.write("/chorus/raft/1.0.0", frame, count=20)
        assert rss_bytes(node) - before < 64 << 20
    work_goes_on(mesh)


def test_strangers_have_a_share_of_open_tasks(mesh: Mesh, stranger: Stranger) -> None:
    kept = 100
    with stranger(identities=3) as peer:
        last = dict.fromkeys(peer.peers, 0)
        for number in range(3 * 2 * kept):
            identity = number % 3
            last[peer.peers[identity]] += 1
            title = f"{peer.peers[identity]} {last[peer.peers[identity]]}"
            data = {"title": title, "commands": ["true"], "required_role": "nobody-has-it"}
            peer.say(TASKS, "task_announcement", json.dumps(data).encode(), identity=identity)
        unknown = {"title": "waits for nothing", "commands": ["true"], "depends_on": ["0" * 26]}
        peer.say(TASKS, "task_announcement", json.dumps(unknown).encode())

        def open_of(submitter: str) -> int:
            answer = mesh.agents[0].get("/api/v1/tasks", submitted_by=submitter, limit=200).json()
            return sum(item["state"] == "announced" for item in answer["items"])

        until(lambda: all(open_of(submitter) == kept for submitter in peer.peers))
        work_goes_on(mesh)
        assert [open_of(submitter) for submitter in peer.peers] == [kept] * 3
        assert not any(item["title"] == "waits for nothing" for item in mesh.tasks())


@pytest.mark.heavy
def test_idle_strangers_leave_room_for_newcomers(mesh: Mesh, stranger: Stranger) -> None:
    with stranger(identities=IDLE, once=True) as idle:
        assert 0 < sum(idle.connected()) <= STRANGERS_MAX
        with stranger() as newcomer:
            newcomer.say(TASKS, "task_announcement", b'{"title": "of a newcomer", "commands": ["true"]}')
            until(
                lambda: any(
                    item["title"] == "of a newcomer" and item["state"] == "completed" for item in mesh.tasks()
                )
            )
        work_goes_on(mesh)
