"""Who may join, whom a joining agent believes, and what peers with the network key alone get out of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chorus.config import MeshSettings
from chorus.config.secret import derive_join_key
from chorus.election.admission import Admission
from chorus.election.challenges import CHALLENGES_MAX, EXPIRY_S, Challenges
from chorus.election.peers import Peers
from chorus.election.proof import Handshake, fresh, same
from chorus.election.search import Search
from chorus.election.seats import Seats
from chorus.hub import HubError, HubInvalid, HubRefused, HubTampered, Request
from chorus.license.gate import DEV_AGENTS_MAX
from chorus.table.members import TABLE_VERSION
from chorus.table.reader import TableReader
from chorus.table.rows import MemberRow, MeshRow
from chorus.testing.fake_hub import FakeHub, FakeMesh

from .world import KEY, SECRET, World, foreign, process, world

REQUEST = "ab" * 16
WRONG_KEY = derive_join_key(b"only the network key was stolen ...")


async def ask(hub: FakeHub, method: str, head: dict[str, Any], peer: str = "peer-a") -> dict[str, Any]:
    return (await hub.request(peer, "mesh", method, head)).head


async def challenged(hub: FakeHub, peer: str = "peer-a") -> Handshake:
    nonce = fresh()
    said = await ask(hub, "challenge", {"nonce": nonce}, peer)
    return Handshake(said["mesh"], peer, hub.peer_id, nonce, said["challenge"])


def answer(handshake: Handshake, key: bytes = KEY, agent_id: str = "s") -> dict[str, Any]:
    proof = handshake.of_joiner(key, agent_id)
    return {"mesh": handshake.mesh, "agent_id": agent_id, "proof": proof, "request": REQUEST}


async def founded(w: World) -> None:
    w.start("a")
    await w.until(lambda: w.members == ["a"], "founded")


def test_a_proof_is_an_hmac_over_a_json_array_with_a_key_of_its_own() -> None:
    pseudorandom = hmac.digest(bytes(32), SECRET, "sha256")
    assert hmac.digest(pseudorandom, b"chorus/v1/join\x01", "sha256") == KEY
    said = b'["chorus/v1/join","joiner","m","l","j","n","c","a"]'
    expected = base64.b64encode(hmac.digest(KEY, said, "sha256")).decode()
    assert Handshake("m", "l", "j", "n", "c").of_joiner(KEY, "a") == expected
    digest = hashlib.sha256(b"Zm91bmQ=").hexdigest()
    said = b'["chorus/v1/join","leader","m","l","j","n","c",7,"%s",[[1,"l"],[7,"j"]]]' % digest.encode()
    expected = base64.b64encode(hmac.digest(KEY, said, "sha256")).decode()
    assert Handshake("m", "l", "j", "n", "c").of_leader(KEY, 7, "Zm91bmQ=", [(1, "l"), (7, "j")]) == expected


def test_every_part_of_a_conversation_changes_its_proofs() -> None:
    base = ("m", "l", "j", "n", "c")
    plain = Handshake(*base)
    proofs = {plain.of_holder(KEY), plain.of_joiner(KEY, "a"), plain.of_leader(KEY, 1, "", [])}
    for place in range(len(base)):
        other = Handshake(*[f"{word}x" if place == n else word for n, word in enumerate(base)])
        proofs |= {other.of_holder(KEY), other.of_joiner(KEY, "a"), other.of_leader(KEY, 1, "", [])}
    shifted = Handshake("ml", "", "j", "n", "c")
    proofs |= {shifted.of_holder(KEY), plain.of_holder(WRONG_KEY), plain.of_joiner(KEY, "b")}
    proofs |= {plain.of_leader(KEY, 2, "", []), plain.of_leader(KEY, 1, "f", [])}
    proofs |= {plain.of_leader(KEY, 1, "", [(1, "l")]), plain.of_refusal(KEY)}
    assert len(proofs) == 3 * (1 + len(base)) + 7


@pytest.mark.parametrize("proof", [None, 7, "", "ä" * 44, "=" * 44, "A" * 44, b"x", ["x"], {}, "\ud800"])
def test_what_is_no_proof_is_no_error_either(proof: object) -> None:
    assert not same(proof, Handshake("m", "l", "j", "n").of_holder(KEY))


def test_challenges_are_for_one_peer_once_and_for_a_while() -> None:
    challenges = Challenges()
    first, second = challenges.give("p", "n1", 0.0), challenges.give("q", "n2", 0.0)
    assert first != second
    assert challenges.take("r", 0.0) is None
    assert challenges.take("p", EXPIRY_S) == (first, "n1")
    assert challenges.take("p", EXPIRY_S) is None
    assert challenges.take("q", EXPIRY_S + 0.1) is None
    for n in range(2 * CHALLENGES_MAX):
        challenges.give(f"peer{n}", "n", 1.0)
        challenges.give("same", "n", 1.0)
    assert len(challenges) == CHALLENGES_MAX
    assert challenges.take("same", 1.0) is not None
    challenges.give("p", "n", 100.0)
    assert len(challenges) == 1


async def test_who_holds_the_network_key_alone_does_not_join(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        for n in range(2 * DEV_AGENTS_MAX):
            hub = w.mesh.hub(f"s{n}", "stranger")
            handshake = await challenged(hub)
            with pytest.raises(HubRefused, match="cluster secret"):
                await ask(hub, "join", answer(handshake, WRONG_KEY))
            # The leader's own words, sent back to it.
            holder = Handshake(handshake.mesh, "peer-a", hub.peer_id, handshake.nonce).of_holder(KEY)
            await challenged(hub)
            with pytest.raises(HubRefused, match="cluster secret"):
                await ask(hub, "join", {**answer(handshake), "agent_id": "s", "proof": holder})
        assert w.members == ["a"]
        w.start("z")
        await w.until(lambda: w.members == ["a", "z"], "an agent with the secret still joins")


async def test_refusals_do_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        for n in range(50):
            hub = w.mesh.hub(f"s{n}", "stranger")
            with pytest.raises(HubRefused):
                await ask(hub, "join", answer(await challenged(hub), WRONG_KEY))
        told = [line for line in caplog.records if "refused an agent" in str(line.msg)]
        assert len(told) == 1


async def test_an_answer_counts_once_and_only_from_the_peer_it_names(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        one, two = w.mesh.hub("one", "x"), w.mesh.hub("two", "x")
        handshake = await challenged(one)
        with pytest.raises(HubRefused, match="no challenge"):
            await ask(two, "join", answer(handshake))
        await challenged(two)
        with pytest.raises(HubRefused, match="cluster secret"):
            await ask(two, "join", answer(handshake))
        assert (await ask(one, "join", answer(handshake)))["raft_id"] > 1
        with pytest.raises(HubRefused, match="no challenge"):
            await ask(one, "join", answer(handshake))
        other = await challenged(one)
        with pytest.raises(HubRefused, match="cluster secret"):
            await ask(one, "join", {**answer(other), "mesh": "mesh-elsewhere"})


@pytest.mark.parametrize(
    "head",
    [{}, {"agent_id": None}, {"agent_id": "\x1b[2J"}, {"agent_id": "x" * 65}, {"agent_id": ["x"]}],
)
async def test_a_join_without_a_proper_name_is_refused(tmp_path: Path, head: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        with pytest.raises(HubInvalid, match="agent_id"):
            await ask(w.mesh.hub("s", "x"), "join", head)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
NAMED = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("mesh", "agent_id", "nonce", "proof", "raft_id", "founding", "members", "leader", "addrs"), JSON
    ),
)
PATIENT = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@PATIENT
@given(method=st.sampled_from(["info", "challenge", "join"]) | st.text(max_size=8), head=NAMED | JSON)
async def test_whatever_a_peer_asks_has_an_answer_or_a_refusal(
    tmp_path: Path, method: str, head: Any
) -> None:
    mesh = FakeMesh()
    mesh.found("a")
    made = process(tmp_path, "a", "peer-a")
    hub = mesh.hub("a", "election")
    search = Search(made, hub, Peers(made, hub), Seats(made.settings, hub))
    reader, seats = TableReader(tmp_path / "none"), Seats(made.settings, hub)
    admission = Admission(made, hub, search, reader, asyncio.Lock(), seats)
    request = Request("mesh", method, head if isinstance(head, dict) else {}, peer="peer-s")
    with contextlib.suppress(HubError):
        await admission.serve(request)


@PATIENT
@given(head=NAMED | JSON)
async def test_whatever_a_peer_answers_ends_nothing(tmp_path: Path, head: Any) -> None:
    mesh = FakeMesh()
    stranger, hub = mesh.hub("s", "x"), mesh.hub("a", "election")

    async def said(request: Request) -> dict[str, Any]:
        return head if isinstance(head, dict) else {"mesh": head}

    await stranger.offer("mesh", said, peers=True)
    made = process(tmp_path, "a", hub.peer_id)
    with pytest.raises(HubTampered):
        await Peers(made, hub).info("peer-s")


@PATIENT
@given(head=NAMED)
async def test_whatever_a_leader_answers_is_adopted_only_with_its_proof(tmp_path: Path, head: Any) -> None:
    mesh = FakeMesh()
    leader, hub = mesh.hub("s", "x"), mesh.hub("a", "election")

    async def said(request: Request) -> dict[str, Any]:
        if request.method == "join":
            return dict(head)
        nonce = str(request.head["nonce"])
        proof = Handshake("mesh-x", "peer-s", "peer-a", nonce).of_holder(KEY)
        return {"mesh": "mesh-x", "proof": proof, "challenge": fresh()}

    await leader.offer("mesh", said, peers=True)
    made = process(tmp_path, "a", hub.peer_id)
    with pytest.raises(HubError):
        await Search(made, hub, Peers(made, hub), Seats(made.settings, hub))._join("peer-s")
    assert mesh.agent("a").raft_id == 0


async def impostor(w: World, name: str, mesh: str | None) -> list[str]:
    """A peer with the network key alone that says it has a mesh, or none; returns what it was asked."""
    hub = w.mesh.hub(name, "x")
    asked: list[str] = []

    async def said(request: Request) -> dict[str, Any]:
        asked.append(request.method)
        assert "dev-" not in orjson.dumps(request.head).decode()
        if request.method == "challenge":
            shown = Handshake(mesh or "", hub.peer_id, str(request.peer), str(request.head["nonce"]))
            return {"mesh": mesh, "proof": shown.of_holder(WRONG_KEY), "challenge": fresh()}
        return {"mesh": mesh, "raft_id": 9, "founding": "e30=", "members": [], "proof": fresh()}

    await hub.offer("mesh", said, peers=True)
    return asked


@pytest.mark.parametrize("mesh", ["mesh-false", None])
async def test_a_false_mesh_is_neither_joined_nor_waited_for(tmp_path: Path, mesh: str | None) -> None:
    async with world(tmp_path) as w:
        # The smaller id: of two agents without a mesh it would be the one to found.
        asked = await impostor(w, "0", mesh)
        w.start("a")
        await w.until(lambda: w.mesh.mesh is not None, "founded its own")
        assert w.mesh.leader == "peer-a"
        assert set(asked) == {"challenge"}
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "and the others join that")


async def test_a_leader_whose_answer_was_changed_is_not_followed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        real = w.elections["a"].mesh_service.serve

        async def changed(request: Request) -> dict[str, Any]:
            said = await real(request)
            return {**said, "raft_id": said["raft_id"] + 1} if request.method == "join" else said

        hub = w.elections["a"]._hub
        await hub.offer("mesh", changed, peers=True)
        search = w.start("b").search
        await w.until(lambda: "does not prove that it leads" in search.why, "refused")
        assert w.members == ["a"]
        await hub.offer("mesh", real, peers=True)
        await w.until(lambda: w.members == ["a", "b"], "joined")


async def test_a_member_that_lost_its_vote_file_asks_for_a_new_identity(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "joined")
        # Its processes start anew, and its core knows of no mesh.
        w.running.pop().cancel()
        w.mesh.agents["b"].raft_id = 0
        lost = tmp_path / "b" / "identity.lost"
        lost.parent.mkdir()
        search = w.start("b").search
        await w.until(lambda: lost.exists() and lost.read_text() != "", "asked for, and why")
        assert "lists it as a member" in lost.read_text()
        assert "identity is being replaced" in search.why
        assert w.members == ["a"]


async def test_nobody_but_a_leader_with_the_secret_costs_an_agent_its_identity(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        real = w.elections["a"].mesh_service.serve

        async def lies(request: Request) -> dict[str, Any]:
            said = await real(request)
            if request.method != "join":
                return said
            return {"mesh": said["mesh"], "lost": True, "proof": said["proof"]}

        await w.elections["a"]._hub.offer("mesh", lies, peers=True)
        (tmp_path / "b").mkdir()
        search = w.start("b").search
        await w.until(lambda: "does not prove that it leads" in search.why, "refused")
        assert not (tmp_path / "b" / "identity.lost").exists()


async def test_an_answer_that_was_lost_is_given_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        hub = w.mesh.hub("s", "x")
        first = await ask(hub, "join", answer(await challenged(hub)))
        again = await ask(hub, "join", answer(await challenged(hub)))
        assert (again["raft_id"], again["founding"]) == (first["raft_id"], first["founding"])
        other = await ask(hub, "join", {**answer(await challenged(hub)), "request": "cd" * 16})
        assert other["lost"] is True
        for request in (None, 7, "", "xy" * 16, "ab" * 17):
            with pytest.raises(HubInvalid, match="request"):
                await ask(hub, "join", {**answer(await challenged(hub)), "request": request})


async def test_strangers_learn_the_mesh_and_the_leader_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.start("a")
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "both in")
        stranger = w.mesh.hub("s", "x")
        said = await ask(stranger, "info", {})
        assert said.pop("mesh") == w.mesh.mesh
        assert said == {"lone": False, "recovers": [], "leader": True, "accepting": True}
        said = await ask(stranger, "challenge", {"nonce": fresh()})
        assert set(said) == {"mesh", "proof", "challenge"}
        said = await ask(stranger, "challenge", {"nonce": fresh()}, "peer-b")
        assert set(said) == {"mesh", "proof", "leader", "addrs"}


async def test_no_entry_holds_the_licence_id(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        w.start("b")
        await w.until(lambda: w.members == ["a", "b"], "joined")
        joins = [orjson.loads(e.payload) for e in w.mesh.entries if e.head["type"] == "join"]
        assert [(join["agent_id"], join["licence"]) for join in joins] == [("b", "development")]


class Rows(TableReader):
    """A table whose members are away when the test says so, of a version that it says."""

    def __init__(self, away: set[str], version: int = 1) -> None:
        self._away, self._version = away, version

    def mesh(self) -> MeshRow:
        settings = MeshSettings.of_entry({})
        return MeshRow("m", settings, None, None, 0, 0, self._version)

    def members(self) -> list[MemberRow]:
        return [
            MemberRow(peer, 1, "", "", (), "", 1, (), (), False, "", "", False, False, 0, 0)
            for peer in self._away
        ]


async def test_a_release_that_cannot_read_the_table_is_refused_by_name(tmp_path: Path) -> None:
    mesh = FakeMesh()
    mesh.found("a", None)
    hub, made = mesh.hub("a", "election"), process(tmp_path, "a", "peer-a")
    search = Search(made, hub, Peers(made, hub), Seats(made.settings, hub))
    rows = Rows(set(), version=TABLE_VERSION + 1)
    admission = Admission(made, hub, search, rows, asyncio.Lock(), Seats(made.settings, hub))
    await hub.offer("mesh", admission.serve, peers=True)
    new = mesh.hub("new", "x")
    for said in ({"table_version": TABLE_VERSION}, {}):
        with pytest.raises(HubRefused, match=f"of s knows version {TABLE_VERSION}: install a newer one"):
            await ask(new, "join", {**answer(await challenged(new)), **said})
    for odd in ("4", None, True, 1.5):
        with pytest.raises(HubInvalid, match="table_version: give a whole number"):
            await ask(new, "join", {**answer(await challenged(new)), "table_version": odd})
    assert await ask(new, "join", {**answer(await challenged(new)), "table_version": TABLE_VERSION + 1})


async def test_members_that_are_away_hold_no_place(tmp_path: Path) -> None:
    mesh = FakeMesh()
    mesh.found("a", None, *[f"m{n}" for n in range(DEV_AGENTS_MAX - 1)])
    hub, made = mesh.hub("a", "election"), process(tmp_path, "a", "peer-a")
    away: set[str] = set()
    search = Search(made, hub, Peers(made, hub), Seats(made.settings, hub))
    admission = Admission(made, hub, search, Rows(away), asyncio.Lock(), Seats(made.settings, hub))
    await hub.offer("mesh", admission.serve, peers=True)
    new = mesh.hub("new", "x")
    with pytest.raises(HubRefused, match=f"allows {DEV_AGENTS_MAX} agents"):
        await ask(new, "join", answer(await challenged(new)))
    # One that is listed holds a place already, and is told that it needs another identity.
    known = mesh.hub("m3", "x")
    handshake = await challenged(known)
    said = await ask(known, "join", answer(handshake))
    assert (said["lost"], said["mesh"]) == (True, handshake.mesh)
    assert same(said["proof"], handshake.of_refusal(KEY))
    away.add("peer-m3")
    assert await ask(new, "join", answer(await challenged(new)))


async def test_a_second_mesh_with_the_same_secret_is_told_with_both_ids(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        assert (await w.call("a", "health"))["other_meshes"] == []
        await foreign(w, "x", "mesh-other")
        await foreign(w, "y", "mesh-false", key=WRONG_KEY)
        await w.until(lambda: bool(w.elections["a"].neighbours.others), "noticed")
        health = await w.call("a", "health")
        assert health["ok"]
        assert health["other_meshes"] == ["mesh-other"]
        for word in (str(w.mesh.mesh), "mesh-other", "chorusctl members rejoin", "CHORUS_CLUSTER_SECRET"):
            assert word in health["warnings"][0]
        assert health["trigger"] == "split_brain"
        w.mesh.cut("a", "x")
        await w.until(lambda: not w.elections["a"].neighbours.others, "and gone")


async def test_many_joins_at_once_stay_within_the_licence(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await founded(w)
        hubs = [w.mesh.hub(f"j{n}", "x") for n in range(DEV_AGENTS_MAX + 4)]
        real = w.mesh.append

        def append(type: str, author: str, body: Any, entry_id: str | None = None) -> Any:
            done = real(type, author, body, entry_id)
            if type == "join":
                joined = w.mesh.by_peer(body["peer"])
                assert joined is not None
                joined.raft_id = done.index
            return done

        w.mesh.append = append  # type: ignore[method-assign]
        shakes = [await challenged(hub) for hub in hubs]
        done = await asyncio.gather(
            *(ask(hub, "join", answer(shake)) for hub, shake in zip(hubs, shakes, strict=True)),
            return_exceptions=True,
        )
        assert sum(isinstance(item, dict) for item in done) == DEV_AGENTS_MAX - 1
        assert sum(isinstance(item, HubRefused) for item in done) == 5
