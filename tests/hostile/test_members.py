"""A member that proposes whatever it likes stops no mesh: it joins by the proofs, then signs odd entries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from typing import Any

import pytest

from chorus.wire.ids import new_id
from e2e.conftest import Agent, Mesh
from e2e.test_run import until

from .conftest import SECRET, Stranger
from .peer import HostilePeer, derived_key
from .processes import all_processes, work_goes_on

pytestmark = pytest.mark.e2e

TIME = "9999-12-31T23:59:59-14:00"


def leader_of(mesh: Mesh) -> tuple[int, str]:
    """The number of the agent that leads, and its peer id."""
    peer = until(lambda: mesh.agents[0].get("/api/v1/election").json()["leader_peer"])
    at = next(n for n, agent in enumerate(mesh.agents) if agent.multiaddr.endswith(f"/p2p/{peer}"))
    return at, peer


def joined(peer: HostilePeer, leader: str) -> str:
    """Proves the cluster secret to the leader as an agent would; returns the mesh's id."""
    key, agent_id = derived_key(SECRET.encode(), "join"), "hostile"
    nonce = base64.b64encode(os.urandom(32)).decode()
    said = _ask(peer, "challenge", {"nonce": nonce})
    about = [
        "chorus/v1/join",
        "joiner",
        said["mesh"],
        leader,
        peer.peers[0],
        nonce,
        said["challenge"],
        agent_id,
    ]
    text = json.dumps(about, separators=(",", ":")).encode()
    proof = base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()
    head = {"mesh": said["mesh"], "agent_id": agent_id, "proof": proof, "request": os.urandom(16).hex()}
    return str(_ask(peer, "join", head)["mesh"])


def _ask(peer: HostilePeer, method: str, head: dict[str, Any]) -> dict[str, Any]:
    answer = peer.request("mesh", method, json.dumps(head).encode())
    assert answer["kind"] == 2, answer
    found: dict[str, Any] = json.loads(answer["text"])
    return found


def propose(peer: HostilePeer, mesh: str, seen: int, type: str, body: dict[str, Any]) -> dict[str, Any]:
    """Signs an entry and has the leader take it, or not."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    head = f'{{"author":"{peer.peers[0]}","body":{text},"id":"{new_id()}","mesh":"{mesh}","seen":{seen},'
    tail = f'"type":"{type}","v":1}}'
    signature = peer.sign((head + tail).encode())
    return peer.request("_raft", "propose", payload=f'{head}"sig":"{signature}",{tail}'.encode())


def odd_entries(author: str) -> list[tuple[str, dict[str, Any]]]:
    submitted = {"submitter": author, "vouched_by": author}

    def submit(**task: Any) -> tuple[str, dict[str, Any]]:
        return "submit", {
            "task_id": new_id(),
            "task": {"title": "t", "commands": ["true"], **task},
            **submitted,
        }

    return [
        submit(start_by=TIME),
        submit(submitted_at=TIME),
        submit(start_by=2**53),
        submit(env={"A": 1}, resources={"cpus": "many"}, depends_on="x"),
        ("submit", {"task_id": 5, "task": [], **submitted}),
        ("result", {"task_id": new_id(), "attempt": 1, "outcome": "completed", "artifacts": [{}]}),
        ("release", {"task_id": new_id(), "attempt": 2**53, "reason": "x" * 2000}),
        ("member", {"agent_id": "a\x1b[2J", "max_tasks": -1, "expertise": {"a": 1}}),
        ("cancel", {"task_id": "\x00", "by": ["x"]}),
        ("vote", {"hash": "0" * 64, "round": {}, "choice": "perhaps"}),
        ("version", {"address": "ucxl://", "size": -1}),
    ]


def test_odd_entries_of_a_member_stop_no_coordinator(mesh: Mesh, stranger: Stranger) -> None:
    before = all_processes(mesh)
    at, leader = leader_of(mesh)
    with stranger(agent=at) as peer:
        mesh_id = joined(peer, leader)
        seen = applied(mesh.agents[at])
        index = 0
        for type, body in odd_entries(peer.peers[0]):
            answer = propose(peer, mesh_id, seen, type, body)
            assert answer["kind"] == 2, (type, body, answer)
            index = json.loads(answer["text"])["index"]
        # Types that no agent knows are refused before they are in the log.
        refused = propose(peer, mesh_id, seen, "news", {})
        assert "are not known" in json.loads(refused["text"])["message"], refused
    until(lambda: all(applied(agent) >= index for agent in mesh.agents))
    work_goes_on(mesh)
    assert all_processes(mesh) == before
    # They are in the log for good, and every start applies what stands there.
    mesh.down()
    mesh.up()
    work_goes_on(mesh)


def applied(agent: Agent) -> int:
    """How far the agent has applied the log."""
    return int(agent.get("/api/v1/status").json()["mesh"]["applied"])
